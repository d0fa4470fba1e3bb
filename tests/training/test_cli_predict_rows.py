"""``xpnet predict`` on the rows of tables."""

import csv
import io
import json

import numpy
import pytest

from tests.support.command_line import xpnet
from training.models.loading import load_network

QUIET = ("--quiet", "--epochs", 3, "--batch-size", 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a table of numbers and one of classes, a run of each, and rows without targets."""
    folder, draw = tmp_path_factory.mktemp("rows"), numpy.random.default_rng(3)
    area, age = draw.uniform(30, 200, 120), draw.integers(0, 80, 120)
    lines = [f"{a:.2f},{b},{3000 * a - 900 * b + 0.5:.2f}" for a, b in zip(area, age, strict=True)]
    (folder / "houses.csv").write_text("\n".join(["area,age,price", *lines]))
    (folder / "new.csv").write_text("id;age;area\n7;10;95.5\n8;40;160\n")
    kinds = ["ant" if a > 100 else "bee, big" for a in area]
    lines = [f'{a:.2f},{b},"{kind}"' for a, b, kind in zip(area, age, kinds, strict=True)]
    (folder / "kinds.csv").write_text("\n".join(["area,age,kind", *lines]))
    (folder / "plain.csv").write_text("\n".join(f"{a:.2f},{b},{a > 100:d}" for a, b in zip(area, age, strict=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.cli.run.draw_figures", lambda *_: None)
        for name in ("houses", "kinds", "plain"):
            assert xpnet("train", "--data", folder / f"{name}.csv", *QUIET, "--out", folder / name).code == 0
    return folder


def test_numbers_are_in_the_targets_units_whatever_the_order_of_columns(folder):
    network = load_network(folder / "houses" / "model.safetensors")
    about, features = network.config, numpy.array([[95.5, 10], [160, 40]])
    x = (features - about["normalization"]["mean"]) / about["normalization"]["std"]
    layers = [network.params[name].astype("float64") for name in network.params]
    for place, (W, b) in enumerate(zip(layers[::2], layers[1::2], strict=True)):
        x = (numpy.maximum(x, 0) if place else x) @ W + b
    expected = (x * about["target_normalization"]["std"] + about["target_normalization"]["mean"])[:, 0]
    result = xpnet("predict", folder / "new.csv", "--run", folder / "houses", "--json")
    assert (result.code, result.err) == (0, "")
    records = [json.loads(line) for line in result.out.splitlines()]
    assert [(record["table"], record["row"]) for record in records] == [(str(folder / "new.csv"), n) for n in (1, 2)]
    numpy.testing.assert_allclose([record["predicted"] for record in records], expected, rtol=1e-5)
    text = xpnet("predict", folder / "new.csv", "--run", folder / "houses")
    assert [float(line.rpartition(": ")[2]) for line in text.out.splitlines()] == pytest.approx(expected, rel=1e-5)


def test_classes_are_quoted_in_a_table_and_targets_are_ignored(folder):
    result = xpnet("predict", folder / "kinds.csv", "--run", folder / "kinds", "--csv", "--top", 5)
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert (result.code, len(rows)) == (0, 120)
    assert list(rows[0]) == ["table", "row", "class", "probability", "class2", "probability2"]
    assert all({row["class"], row["class2"]} == {"ant", "bee, big"} for row in rows)
    assert all(float(row["probability"]) + float(row["probability2"]) == pytest.approx(1, abs=1e-4) for row in rows)
    targets = [row["kind"] for row in csv.DictReader(io.StringIO((folder / "kinds.csv").read_text()))]
    right = sum(row["class"] == target for row, target in zip(rows, targets, strict=True))
    assert right > 100


def test_tables_without_names_are_taken_in_order(folder, tmp_path):
    (tmp_path / "rows.csv").write_text("40,3\n190,3\n")
    with_targets = xpnet("predict", folder / "plain.csv", "--run", folder / "plain")
    without = xpnet("predict", tmp_path / "rows.csv", "--run", folder / "plain")
    assert (with_targets.code, len(with_targets.out.splitlines())) == (0, 120)
    assert [line.split(": ")[1][0] for line in without.out.splitlines()] == ["0", "1"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("age,size\n1,2\n", "there is no column 'area'; expected the features 'area', 'age', got 'age', 'size'"),
        ("age,area\n1,2\n3,many\n", "line 3: column 'area': expected a finite number, got 'many'"),
        ("age,area\n1\n", "line 2: expected 2 values, got 1"),
        ("age,area\n", "expected rows after the names of the columns, got none"),
        ("1,2,3,4\n", "expected 2 columns of features, got 4"),
        ("", "expected a table with a line of column names, got an empty file"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table, said, folder, tmp_path):
    (tmp_path / "wrong.csv").write_text(table)
    result = xpnet("predict", tmp_path / "wrong.csv", "--run", folder / "houses")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Error: ")
    assert said in result.err
    assert len(result.err.splitlines()) == 1


def test_tables_and_pictures_are_not_mixed(folder, tmp_path):
    result = xpnet("predict", folder / "new.csv", tmp_path / "1.png", "--run", folder / "houses")
    assert (result.code, result.err) == (2, "Error: expected tables or pictures, got both\n")
    result = xpnet("predict", tmp_path / "1.png", "--run", folder / "houses")
    assert "rows of features come from a .csv" in result.err


def test_a_table_is_evaluated_by_the_target_of_the_training(folder, tmp_path):
    lines = (folder / "houses.csv").read_text().splitlines()
    (tmp_path / "other.csv").write_text("\n".join(lines[:20]))
    assert xpnet("evaluate", folder / "houses", "--data", tmp_path / "other.csv").code == 0
    (tmp_path / "turned.csv").write_text("age,area,price\n1,2,3\n4,5,6.5\n")
    result = xpnet("evaluate", folder / "houses", "--data", tmp_path / "turned.csv")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "the model takes the columns ['area', 'age']; turned has ['age', 'area']" in result.err


def test_several_numbers_are_predicted_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = numpy.random.default_rng(0).normal(size=(60, 2))
    table = numpy.column_stack([x, x[:, 0] * 100, x[:, 1] - 5])
    numpy.savetxt("two.csv", table, "%.5f", ",", header="a,b,big,small", comments="")
    assert xpnet("train", "--data", "two.csv", "--target", "big,small", "--epochs", 2, "--out", "run").code == 0
    text, record, (head, cells) = (
        xpnet("predict", "two.csv", "--run", "run", *form).out.splitlines()[:length]
        for form, length in (((), 1), (("--json",), 1), (("--csv",), 2))
    )
    predicted = json.loads(record[0])["predicted"]
    assert list(predicted) == ["big", "small"]
    assert text[0].endswith(f": big {predicted['big']:.6g}   small {predicted['small']:.6g}")
    assert head == "table,row,big,small"
    assert cells.split(",")[2:] == [f"{number:.6g}" for number in predicted.values()]
