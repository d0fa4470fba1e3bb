import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import sides

QUICK = ["--only", "softmax", "--peers", "textbook", "--repeats", "1", "--seconds", "0", "--threads", "1"]


def test_a_run_writes_table_json_and_chart(bench, tmp_path):
    result = bench(*QUICK, "--json", tmp_path / "a.json", "--chart", tmp_path / "a.png")
    assert result.code == 0, result.err
    assert "numpy" in result.out
    (line,) = [line for line in result.out.splitlines() if line.startswith("softmax")]
    made = json.loads((tmp_path / "a.json").read_text())
    (row,) = made["steps"]
    assert list(row["sides"]) == ["xpnet", "textbook"]
    ratio = row["sides"]["xpnet"]["ms"] / row["sides"]["textbook"]["ms"]
    assert row["ratios"] == {"textbook": pytest.approx(ratio)}
    assert f"{ratio:.2f}" in line
    assert made["machine"]["blas"]
    assert (tmp_path / "a.png").stat().st_size > 0


def test_threads_are_as_before_and_as_told_between(bench, monkeypatch):
    import threadpoolctl

    from backend import threads
    from bench import cli

    def blas():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    seen = []
    before = threads.limit(), blas()

    def measured(case, **limits):
        seen.append((threads.limit(), set(blas())))
        return turns(case, **limits)

    turns = cli.measure.__globals__["timing"].take_turns
    monkeypatch.setattr("bench.timing.take_turns", measured)
    assert bench(*QUICK, "--threads", "2").code == 0
    assert [count for count, _ in seen] == [1, 2]
    assert seen[0][1] == {1}
    assert (threads.limit(), blas()) == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--only", "W9"], "'W9' is not one of 'w1a'"),
        (["--peers", "keras"], "'keras' is not one of 'torch'"),
        (["--threads", "0"], "0 is not in the range"),
        (["--threads", "some"], "'some' is not a valid integer"),
        (["--chart", "a.gif"], "ends in .png, .svg, .pdf, not a.gif"),
        (["--json", "nowhere/a.json"], "the folder nowhere does not exist"),
        (["compare", "nowhere.json", "nowhere.json"], "nowhere.json: No such file"),
    ],
)
def test_errors_are_one_line(bench, arguments, reason):
    result = bench(*arguments)
    assert result.code == 2
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error:")]
    assert reason in line
    assert result.out == ""


def test_a_peer_that_is_not_installed_is_told_before_anything_is_measured(bench, monkeypatch):
    monkeypatch.setattr("bench.cli.installed", lambda peer: peer == "textbook")
    result = bench(*QUICK, "--peers", "torch")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: not installed: torch; the extra `bench` of xpnet has the peers\n"


def test_another_result_is_an_error_and_not_timed(bench, monkeypatch):
    from bench import textbook

    monkeypatch.setattr(textbook.SoftmaxWithLoss, "backward", lambda self: 2 * self.y)
    result = bench(*QUICK)
    assert (result.code, result.out) == (2, "")
    assert "softmax: dx of textbook differs" in result.err


def test_help_names_every_workload_and_peer(bench):
    from bench.workloads import workloads

    text = bench("--help").out
    for name in [*(each.name for each in workloads()), "memory", "epoch", *sides.PEERS, "compare", "kernels"]:
        assert name in text


def test_settings_of_openblas_are_unset_and_reported(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "4096")
    done = subprocess.run(
        [sys.executable, "-m", "bench", *QUICK],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "unset for this process: OPENBLAS_CORETYPE=Nehalem OPENBLAS_L2_SIZE=4096" in done.stdout
    assert "Nehalem" not in next(line for line in done.stdout.splitlines() if line.startswith("BLAS"))
