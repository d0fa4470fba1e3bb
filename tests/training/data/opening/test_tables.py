"""Tables: which column is what, and what is said of each mistake."""

import numpy as np
import pytest

import training.data
from training.data import DataError


def opened(tmp_path, text, **options):
    file = tmp_path / "table.csv"
    file.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return training.data.open(file, **options)


def test_features_and_a_target_of_texts(tmp_path):
    data = opened(tmp_path, "size,weight,kind\n1,2.5,cat\n3,-4e1,dog\n")
    assert (data.kind, data.classes, data.shape) == ("classification", ("cat", "dog"), (2,))
    np.testing.assert_array_equal(data.train.inputs, [[1, 2.5], [3, -40]])
    assert data.train.targets.tolist() == [0, 1]
    assert data.notes == ("the target is column 'kind'; features: 'size', 'weight'",)


@pytest.mark.parametrize(
    ("header", "target", "place"),
    [("a,target,b", None, 1), ("y,a,b", None, 0), ("a,b,c", None, 2), ("a,b,c", "a", 0), ("a,Label,y", None, 1)],
)
def test_the_target_column(tmp_path, header, target, place):
    data = opened(tmp_path, f"{header}\n1,2,3\n4,5,6\n", target=target)
    numbers = np.array([[1, 2, 3], [4, 5, 6]])
    assert data.classes == tuple(map(str, numbers[:, place]))
    np.testing.assert_array_equal(data.train.inputs, np.delete(numbers, place, axis=1))


def test_numbers_are_predicted(tmp_path):
    data = opened(tmp_path, "a,price\n1,2.5\n2,3\n")
    assert (data.kind, data.outputs, data.train.targets.tolist()) == ("regression", 1, [2.5, 3.0])
    assert opened(tmp_path, "a,price\n1,2\n2,3\n", target_kind="regression").kind == "regression"


@pytest.mark.parametrize(
    "text",
    [
        "a,b,t\r\n1,2,x\r\n3,4,y\r\n",
        "\ufeffa,b,t\n1,2,x\n3,4,y",
        'a,"b",t\n"1",2," x"\n\n3,"4",y\n',
        "a;b;t\n1;2;x\n3;4;y\n",
        "a\tb\tt\n1\t2\tx\n3\t4\ty\n",
        "a , b,t\n 1, 2 ,x\n3,4,y\n , ,\n",
    ],
)
def test_spellings_of_one_table(tmp_path, text):
    data = opened(tmp_path, text)
    np.testing.assert_array_equal(data.train.inputs, [[1, 2], [3, 4]])
    assert data.classes == ("x", "y")
    assert "column 't'" in data.notes[0]


def test_a_table_without_names(tmp_path):
    data = opened(tmp_path, "1,2,0\n3,4,1\n5,6,0\n")
    assert len(data.train) == 3
    assert "column '3'" in data.notes[0]


def test_quoted_names_may_have_separators_and_lines(tmp_path):
    data = opened(tmp_path, 'a,"b, or\nc",t\n1,2,"x, y"\n3,4,z\n')
    assert data.classes == ("x, y", "z")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got an empty file"),
        ("a,b\n", "expected rows after the names of the columns, got none"),
        ("a\n1\n", "separated by , ; or a tab, got one column, 'a'"),
        ("a,a,t\n1,2,3\n", "two columns are called 'a'"),
        ("a,t\n1,2\n3\n", "line 3: expected 2 values, got 1"),
        ("a,t\n1,2\n,3\n", "line 3: column 'a': expected a finite number, got an empty value"),
        ("a,t\n1,2\n\nnan,3\n", "line 4: column 'a': expected a finite number, got 'nan'"),
        ("a,t\n1e999,3\n", "line 2: column 'a': expected a finite number, got '1e999'"),
        ("a,t\nred,3\n", "column 'a': expected a finite number, got 'red'"),
        ("a,t\n1_0,3\n", "got '1_0'"),
        ("a,t\n1,\n", "line 2: column 't': expected a target, got an empty value"),
        ('a,t\n1,"x\n', "line 3|unexpected end"),
        (b"a,t\n1,\xff\n", "expected text in UTF-8"),
        ("a,t\n1,2\n3,2\n", "expected two classes or more, got .* alone"),
    ],
)
def test_mistakes_in_tables_are_told(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        opened(tmp_path, text)


def test_several_target_columns_are_labels_or_numbers(tmp_path):
    data = opened(tmp_path, "a,red,b,big\n1,0,2,1\n3,1,4,1\n5,0,6,0\n", target="red, big")
    assert (data.kind, data.classes, data.outputs) == ("multi-label", ("red", "big"), 2)
    np.testing.assert_array_equal(data.train.inputs, [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(data.train.targets, [[0, 1], [1, 1], [0, 0]])
    assert data.counts("train").tolist() == [1, 2]
    assert data.describe()["labels"] == "2, on average 1 a sample: red 1, big 2"
    assert data.notes == ("the targets are columns 'red', 'big'; features: 'a', 'b'",)
    assert data.columns.target == "red,big"
    data = opened(tmp_path, "a,x,y\n1,0.5,2\n3,1,4\n", target="x,y")
    assert (data.kind, data.outputs, data.train.targets.tolist()) == ("regression", 2, [[0.5, 2], [1, 4]])
    data = opened(tmp_path, "a,x,y\n1,0,1\n3,1,0\n", target="x,y")  # one-hot
    assert (data.kind, data.classes, data.train.targets.tolist()) == ("classification", ("x", "y"), [1, 0])
    data = opened(tmp_path, 'a,"x,y"\n1,p\n3,q\n', target="x,y")  # the name of one column
    assert (data.kind, data.classes) == ("classification", ("p", "q"))
    for text, options, message in (
        ("a,x,y\n1,0,u\n", {"target": "x,y"}, "line 2: column 'y': expected a finite number, got 'u'"),
        ("x,y\n1,0\n", {"target": "x,y"}, "expected feature columns next to the targets"),
        (
            "a,x,y\n1,0,2\n",
            {"target": "x,y", "target_kind": "multi-label"},
            "a label of sample 0 of the train part is 2",
        ),
        ("a,x\n1,u\n", {"target_kind": "multi-label"}, "a label of sample 0 of the train part is 'u'"),
    ):
        with pytest.raises(DataError, match=message):
            opened(tmp_path, text, **options)


def test_columns_that_are_asked_for_must_be_there(tmp_path):
    with pytest.raises(DataError, match="there is no column 'c' for the target; expected one of 'a', 't'"):
        opened(tmp_path, "a,t\n1,2\n", target="c")
    with pytest.raises(
        DataError, match="target kind must be one of classification, multi-label, regression, got 'other'"
    ):
        opened(tmp_path, "a,t\n1,2\n", target_kind="other")


def test_a_table_for_each_part(tmp_path):
    (tmp_path / "train.csv").write_text("a,t\n1,x\n2,y\n")
    (tmp_path / "test.csv").write_text("a,t\n3,y\n")
    data = training.data.open(tmp_path)
    assert (len(data.train), data.test.targets.tolist()) == (2, [1])
    (tmp_path / "test.csv").write_text("b,t\n3,y\n")
    with pytest.raises(DataError, match=r"test\.csv: expected the columns \['a', 't'\] of the training table, got"):
        training.data.open(tmp_path)
    (tmp_path / "test.csv").write_text("a,t\n3,z\n")
    with pytest.raises(DataError, match="class 'z' of sample 0 of the test part is not among the training classes"):
        training.data.open(tmp_path)


def test_columns_are_normalized_in_float64(tmp_path):
    dates = [1_700_000_000 + 10 * row for row in range(8)]
    data = opened(tmp_path, "date,same,t\n" + "".join(f"{date},0.1,{row % 2}\n" for row, date in enumerate(dates)))
    ((x, _),) = data.loader("train", 8, shuffle=False)
    expected = (np.array(dates) - np.mean(dates)) / np.std(dates)
    np.testing.assert_allclose(x[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(x[:, 1], 0, atol=1e-12)
    assert data.normalization.std[1] == 1
