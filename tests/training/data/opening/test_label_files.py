"""Pictures whose labels stand in a file."""

import numpy as np
import pytest
from PIL import Image

import training.data
from training.data import DataError


def opened(folder, text, parts=("",), count=4, **options):
    for part in parts:
        (folder / part / "in").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.full((4, 5, 3), 10 * number + len(part), "uint8") + np.arange(3, dtype="uint8")
            Image.fromarray(pixels).save(folder / part / "in" / f"{number}.png")
        (folder / part / "labels.csv").write_text(text)
    return training.data.open(folder, **options)


def rows(*values):
    return "file,red,big\n" + "".join(f"in/{place}.png,{value}\n" for place, value in enumerate(values))


def test_columns_of_zeros_and_ones_are_labels(tmp_path):
    data = opened(tmp_path, rows("0,1", "1,1", "0,0", "1,0"))
    assert (data.kind, data.classes, data.shape) == ("multi-label", ("red", "big"), (3, 4, 5))
    np.testing.assert_array_equal(data.train.targets, [[0, 1], [1, 1], [0, 0], [1, 0]])
    assert data.train.inputs[:][:, 0, 0, 0].tolist() == [0, 10, 20, 30]
    x, t = next(iter(data.loader("train", 4, shuffle=False)))
    assert (x.shape, t.dtype, t.shape) == ((4, 3, 4, 5), "float32", (4, 2))


@pytest.mark.parametrize(
    ("texts", "kind", "classes", "targets"),
    [
        (["a;b", "b", "", "b | a"], "multi-label", ("a", "b"), [[1, 1], [0, 1], [0, 0], [1, 1]]),
        (["cat", "big dog", "cat", "cat"], "classification", ("big dog", "cat"), [1, 0, 1, 1]),
        (["3", "1", "3", "1"], "classification", ("1", "3"), [1, 0, 1, 0]),
        (["3.5", "1", "2", "0"], "regression", (), [3.5, 1, 2, 0]),
    ],
)
def test_one_column_has_labels_classes_or_numbers(tmp_path, texts, kind, classes, targets):
    data = opened(tmp_path, "file,what\n" + "".join(f"in/{place}.png,{text}\n" for place, text in enumerate(texts)))
    assert (data.kind, data.classes) == (kind, classes)
    np.testing.assert_array_equal(data.train.targets, targets)


def test_parts_have_files_of_their_own(tmp_path):
    data = opened(tmp_path, rows("0,1", "1,1", "0,0", "1,0"), ("train", "test"))
    assert {name: part.inputs[1][0, 0, 0] for name, part in data.parts.items()} == {"train": 15, "test": 14}
    split = opened(tmp_path / "other", rows(*["0,1", "1,1"] * 10), count=20, val=0.2)
    assert {name: len(part) for name, part in split.parts.items()} == {"train": 16, "val": 4}
    wider = split.with_classes(["big", "green", "red"])
    np.testing.assert_array_equal(wider.val.targets[:, [2, 0]], split.val.targets)
    assert not wider.val.targets[:, 1].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rows("0,1", "1,1", "0,0", "1,0", "1,1"), r"labels.csv, line 6: there is no picture 'in/4.png' in"),
        (rows("0,1", "1,x", "0,0", "1,0"), "line 3: column 'big': expected a finite number, got 'x'"),
        ("in/0.png,a\nin/1.png,b\n", "expected a first line with the names of two columns or more"),
        ("file\nin/0.png\n", "expected a first line with the names of two columns or more"),
        ("file,what\nin/0.png,a\nin/1.png,\n", "labels.csv: 1.png has no class"),
    ],
)
def test_mistakes_are_told(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        opened(tmp_path, text)


def test_a_file_of_that_name_that_names_no_pictures_is_left_alone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (3, 3)).save(tmp_path / name / "0.png")
    (tmp_path / "labels.csv").write_text("id,name\n0,a\n1,b\n")
    assert training.data.open(tmp_path).classes == ("a", "b")
