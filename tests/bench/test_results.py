import json

import pytest

from bench import report


def test_json_comes_back_as_it_went(tmp_path, results):
    written = results(W4=0.9, W2=1.2)
    report.write_json(written, tmp_path / "a.json")
    assert report.read_json(tmp_path / "a.json") == written


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "expected results of schema 1, got None"),
        ('{"schema": 2}', "got 2"),
        ('{"schema": 1, "steps": []}', "lacks memory"),
    ],
)
def test_another_file_is_refused(tmp_path, content, reason):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(report.ResultsError, match=reason):
        report.read_json(file)


def test_the_table_has_medians_ratios_and_what_was_chosen(results):
    made = results(W4=0.9)
    made["steps"][0]["sides"]["torch"]["way"] = "channels_last"
    made["steps"][0]["sides"]["torch"]["discarded"] = 2
    text = report.table(made)
    lines = text.splitlines()
    assert lines[0].split() == ["workload", "threads", "xpnet", "ms", "torch", "ms", "ratio"]
    assert lines[1].split() == ["W4", "1", "90.000", "±", "10", "%", "100.000", "±", "10", "%", "0.90"]
    assert "W4, 1: torch channels_last, 2 of 42 samples disturbed" in text
    assert "!" not in text


def test_the_table_marks_what_is_disturbed(results):
    made = results(W4=0.9)
    made["steps"][0]["sides"]["xpnet"]["disturbed"] = True
    text = report.table(made)
    assert "%!" in text
    assert "figures are of all samples" in text


def test_the_chart_is_a_picture(tmp_path, results):
    made = results(W4=0.9, W2=1.2)
    made["steps"] += [dict(row, threads=2) for row in made["steps"]]
    report.chart(made, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


class TestGate:
    @pytest.fixture
    def compare(self, bench, tmp_path):
        def run(old, new, *options):
            for name, content in (("old", old), ("new", new)):
                (tmp_path / f"{name}.json").write_text(json.dumps(content))
            return bench("compare", tmp_path / "old.json", tmp_path / "new.json", *options)

        return run

    def test_the_same_passes(self, compare, results):
        result = compare(results(W4=0.9, W2=1.2), results(W4=0.9, W2=1.2))
        assert result.code == 0
        assert "0 of 2 worse" in result.out

    def test_within_the_tolerance_and_better_pass(self, compare, results):
        assert compare(results(W4=1.0, W2=1.2), results(W4=1.09, W2=0.3)).code == 0

    def test_worse_fails_and_is_named(self, compare, results):
        result = compare(results(W4=1.0, W2=1.2), results(W4=1.2, W2=1.2))
        assert result.code == 1
        (line,) = [line for line in result.out.splitlines() if "WORSE" in line]
        assert line.startswith("W4, 1 thread ")
        assert "+20.0%" in line

    def test_the_tolerance_is_the_users(self, compare, results):
        assert compare(results(W4=1.0), results(W4=1.2), "--tolerance", "0.3").code == 0
        assert compare(results(W4=1.0), results(W4=1.01), "--tolerance", "0").code == 1

    def test_memory_counts(self, compare, results):
        old, new = results(W4=1.0), results(W4=1.0)
        for made, ratio in ((old, 1.0), (new, 1.5)):
            made["memory"] = [{"workload": "W4", "threads": 1, "ratios": {"torch": ratio}}]
        result = compare(old, new)
        assert result.code == 1
        assert "W4 memory, 1 thread" in result.out

    @pytest.mark.parametrize("side", ["xpnet", "torch"])
    @pytest.mark.parametrize("file", [0, 1])
    def test_a_disturbed_ratio_is_marked(self, compare, results, side, file):
        made = results(W4=1.0, W2=1.0), results(W4=1.2, W2=1.0)
        made[file]["steps"][0]["sides"][side]["disturbed"] = True
        result = compare(*made)
        assert result.code == 1
        lines = result.out.splitlines()
        assert lines[0].endswith("WORSE  disturbed: measure again")
        assert "disturbed" not in lines[1]

    def test_only_common_rows_are_compared(self, compare, results):
        assert "of 1 worse" in compare(results(W4=1.0, W2=1.0), results(W4=1.0, W3=9.0)).out

    def test_nothing_in_common_is_an_error(self, compare, results):
        result = compare(results(W2=1.0), results(W4=1.0))
        assert result.code == 2
        assert "no ratio to torch in common" in result.err


DAMAGE = {
    "a row that is no object": lambda results: results["steps"].append(3),
    "a row without ratios": lambda results: results["steps"][0].pop("ratios"),
    "a ratio that is a text": lambda results: results["steps"][0]["ratios"].update(torch="fast"),
    "a ratio of nothing": lambda results: results["steps"][0]["ratios"].update(torch=0),
    "threads that are a text": lambda results: results["steps"][0].update(threads="two"),
    "steps that are a number": lambda results: results.update(steps=1),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_results_are_one_line(bench, results, tmp_path, case):
    damaged = results(mlp=1.0)
    DAMAGE[case](damaged)
    for name, content in {"old": damaged, "new": results(mlp=1.0)}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    result = bench("compare", tmp_path / "old.json", tmp_path / "new.json")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert line.startswith(f"Error: {tmp_path / 'old.json'} or ")
    assert "is damaged" in line


def test_results_that_are_nested_deeply_are_one_line(bench, tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    result = bench("compare", tmp_path / "deep.json", tmp_path / "deep.json")
    assert result.code == 2
    assert "deep.json: not JSON" in result.err
