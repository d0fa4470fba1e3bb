"""Data sets by name: the embedded one, those on disk in every spelling, and the book's load_mnist."""

import dataclasses
import gzip
import hashlib
import importlib.resources
import shutil
import subprocess
import sys

import numpy as np
import pytest

from backend import asnumpy
from training.data import NAMES, DataError, Dataset, load, load_mnist
from training.data.build_embedded import build, main
from training.data.idx import write_idx
from training.data.sources import FILES, SOURCES, Source

EMBEDDED = importlib.resources.files("training.data") / "embedded"


@pytest.fixture(autouse=True)
def _no_data_anywhere(request, monkeypatch, tmp_path):
    if "data_dir" in request.fixturenames:
        request.getfixturevalue("data_dir")  # reads the variable before it goes
    monkeypatch.delenv("XPNET_DATA_DIR", raising=False)
    monkeypatch.setenv("XPNET_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A folder with a set of 3 + 2 images of 2 × 2 pixels that ``load("tiny")`` knows."""
    folder = tmp_path / "files"
    folder.mkdir()
    parts = (np.arange(12).reshape(3, 2, 2), [2, 0, 1], np.arange(8).reshape(2, 2, 2) + 100, [1, 2])
    sums = [
        hashlib.sha256(write_idx(folder / name, np.array(part, np.uint8))).hexdigest()
        for (name, _), part in zip(FILES, parts, strict=True)
    ]
    monkeypatch.setitem(SOURCES, "tiny", Source("Tiny", ("a", "b", "c"), tuple(sums)))
    return folder


def check_tiny(data):
    assert data.name == "tiny"
    assert data.classes == ("a", "b", "c")
    assert data.train_images.tolist() == np.arange(12).reshape(3, 1, 2, 2).tolist()
    assert data.train_labels.tolist() == [2, 0, 1]
    assert data.test_images.tolist() == (np.arange(8).reshape(2, 1, 2, 2) + 100).tolist()
    assert data.test_labels.tolist() == [1, 2]


def test_the_embedded_set():
    data = load()
    assert data.name == "mnist10k"
    assert data.classes == tuple("0123456789")
    assert data.train_images.shape == (10000, 1, 28, 28)
    assert data.test_images.shape == (2000, 1, 28, 28)
    assert data.train_images.dtype == data.train_labels.dtype == np.uint8
    assert data.input_dim == (1, 28, 28)
    # The first labels of MNIST, as LeCun's page and every tutorial show them.
    assert data.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_the_embedded_set_needs_no_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPNET_DATA_DIR", str(tmp_path / "nowhere"))
    assert len(load("mnist10k", download=True).train_labels) == 10000
    assert not (tmp_path / "cache").exists()


def test_the_embedded_set_is_not_read_from_a_folder(tmp_path):
    """Who names a folder means the data in it: to train on other data in silence would mislead."""
    with pytest.raises(DataError, match=r"mnist10k is part of xpnet.*did you mean .*'mnist'"):
        load("mnist10k", tmp_path)


def test_the_embedded_files_have_their_sums_and_their_licence():
    sums = dict(zip(FILES, SOURCES["mnist10k"].sha256, strict=True))
    licence = (EMBEDDED / "LICENSE").read_text()
    for (name, _), expected in sums.items():
        content = gzip.decompress((EMBEDDED / f"{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == expected
        assert f"{expected}  {name}" in licence
    for words in (
        "LeCun",
        "Cortes",
        "Burges",
        "https://creativecommons.org/licenses/by-sa/3.0/",
        "first 10,000",
    ):
        assert words in licence
    size = sum(len((EMBEDDED / f"{name}.gz").read_bytes()) for name, _ in FILES)
    assert size < 2_000_000


def test_nothing_heavy_is_imported_for_the_embedded_set():
    heavy = ("requests", "platformdirs", "rich", "tqdm", "cupy", "matplotlib", "PIL")
    code = f"import sys; from training.data import load; load(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dot", [False, True], ids=["-idx", ".idx"])
@pytest.mark.parametrize("place", [".", "tiny"], ids=["directly", "subfolder"])
def test_files_in_every_spelling(tiny, tmp_path, ending, dot, place):
    folder = tmp_path / "data" / place
    folder.mkdir(parents=True)
    for name, _ in FILES:
        content = (tiny / name).read_bytes()
        spelled = name.replace("-idx", ".idx") if dot else name
        (folder / f"{spelled}{ending}").write_bytes(gzip.compress(content) if ending else content)
    check_tiny(load("tiny", tmp_path / "data"))
    check_tiny(load("tiny", str(tmp_path / "data")))


def test_data_dir_goes_before_the_environment_and_that_before_the_cache(tiny, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="was not found"):
        load("tiny")
    shutil.copytree(tiny, tmp_path / "cache" / "tiny")
    check_tiny(load("tiny"))
    monkeypatch.setenv("XPNET_DATA_DIR", str(tmp_path / "nowhere"))
    check_tiny(load("tiny"))
    wrong = tmp_path / "wrong"
    shutil.copytree(tiny, wrong)
    (wrong / FILES[1][0]).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 2, 0, 0]))
    monkeypatch.setenv("XPNET_DATA_DIR", str(wrong))
    with pytest.raises(DataError, match=f"{wrong}.*SHA-256"):
        load("tiny")
    check_tiny(load("tiny", tiny))


def test_a_given_folder_is_the_only_one_searched(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XPNET_DATA_DIR", str(tiny))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        load("tiny", tmp_path / "empty", download=True)
    assert str(tiny) not in str(error.value)
    for words in (
        f"{tmp_path / 'empty'}: lacks train-images-idx3-ubyte, train-labels",
        "--data-dir",
        "mnist10k",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize("missing", [name for name, _ in FILES])
def test_a_missing_file_is_named(tiny, missing):
    (tiny / missing).unlink()
    with pytest.raises(DataError, match=f"lacks {missing}\n"):
        load("tiny", tiny)


def test_how_to_supply_the_files_is_said(tmp_path):
    with pytest.raises(DataError) as error:
        load("fashion-mnist", tmp_path / "nowhere")
    for words in (
        "Fashion-MNIST",
        "nowhere: the folder does not exist",
        "--data-dir",
        "XPNET_DATA_DIR",
        "download=True",
    ):
        assert words in str(error.value)
    assert all(name in str(error.value) for name, _ in FILES)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="unknown data set 'minst': expected one of mnist10k, mnist, fashion-mnist"):
        load("minst")


def test_files_of_another_set_are_refused(tmp_path):
    for name, _ in FILES:
        (tmp_path / f"{name}.gz").write_bytes((EMBEDDED / f"{name}.gz").read_bytes())
    with pytest.raises(DataError, match=f"expected {SOURCES['mnist'].sha256[0]}; .*another data set"):
        load("mnist", tmp_path)


GOOD = {
    "train_images": np.zeros((4, 3, 5, 6), np.uint8),
    "train_labels": np.array([0, 1, 1, 0]),
    "test_images": np.zeros((2, 3, 5, 6), np.uint8),
    "test_labels": np.array([0, 1]),
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_images": np.zeros((4, 5, 6), np.uint8)}, r"train images must be \(N, C, H, W\) .* \(4, 5, 6\)"),
        ({"train_labels": np.zeros(3, int)}, r"labels \(N,\), got \(4, 3, 5, 6\) and \(3,\)"),
        ({"test_images": np.zeros((2, 3, 5, 7), np.uint8)}, r"\(3, 5, 6\), test images \(3, 5, 7\)"),
        ({"test_images": np.zeros((2, 3, 5, 6), np.int16)}, "test images must be uint8 or floating point, got int16"),
        ({"test_labels": np.zeros(2)}, "test data: labels are class indices, .* got float64"),
        ({"test_labels": np.array([0, 2])}, "test data: label 2 at index 1 is out of range: expected 0 to 1"),
        ({"test_labels": np.array([-1, 0])}, "test data: label -1 at index 0"),
        ({"train_labels": [0, 1, 1, 0]}, "mine: train_labels must be a NumPy array, got list"),
        ({"test_images": None}, "mine: test_images must be a NumPy array, got NoneType"),
        ({"classes": 2}, "mine: classes must be a tuple of names, got 2"),
        ({"classes": (0, 1)}, "mine: classes must be a tuple of names"),
        ({"name": 3}, "name of a data set must be a string, got 3"),
    ],
)
def test_a_data_set_of_ones_own_is_checked(wrong, message):
    good = Dataset("mine", ("a", "b"), **GOOD)
    assert good.input_dim == (3, 5, 6)
    assert repr(good) == "Dataset(name='mine', classes=('a', 'b'))"
    with pytest.raises(DataError, match=message):
        dataclasses.replace(good, **wrong)


def test_load_mnist_as_in_the_book(device):
    data = load()
    (x_train, t_train), (x_test, t_test) = load_mnist(dataset="mnist10k")
    assert device.kind == ("cpu" if isinstance(x_train, np.ndarray) else "cuda")
    for x, t, images, labels in (
        (x_train, t_train, data.train_images, data.train_labels),
        (x_test, t_test, data.test_images, data.test_labels),
    ):
        assert x.dtype == np.float32
        np.testing.assert_array_equal(
            asnumpy(x), images.reshape(len(images), 784).astype(np.float32) / 255, strict=True
        )
        np.testing.assert_array_equal(asnumpy(t), labels, strict=True)


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("one_hot", [True, False])
def test_load_mnist_options(normalize, flatten, one_hot):
    data = load()
    _, (x, t) = load_mnist(normalize, flatten, one_hot, dataset="mnist10k")
    assert x.shape == ((2000, 784) if flatten else (2000, 1, 28, 28))
    assert x.dtype == (np.float32 if normalize else np.uint8)
    assert x.max() == (1 if normalize else 255)
    if one_hot:
        assert t.shape == (2000, 10)
        assert t.dtype == np.float32
        assert (t.sum(axis=1) == 1).all()
        assert t.argmax(axis=1).tolist() == data.test_labels.tolist()
    else:
        assert t.tolist() == data.test_labels.tolist()
    x[:] = 0  # the caller's own, to write to
    t[:] = 0


def test_load_mnist_is_mnist_and_says_what_works_without_it():
    with pytest.raises(DataError, match="MNIST was not found") as error:
        load_mnist(download=False)
    assert "dataset='mnist10k'" in str(error.value)


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in NAMES if name != "mnist10k"])
def test_the_full_sets(data_dir, name):
    data = load(name, data_dir)
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert data.test_images.shape == (10000, 1, 28, 28)
    assert np.bincount(data.test_labels, minlength=10).sum() == 10000
    if name == "fashion-mnist":  # as many of each garment
        assert np.bincount(data.train_labels).tolist() == [6000] * 10


@pytest.mark.data
def test_the_embedded_set_is_built_from_the_full_one(data_dir, tmp_path, capsys):
    contents = build(data_dir, tmp_path / "built")
    assert len(contents) == 4
    for name, content in contents.items():
        assert gzip.decompress((EMBEDDED / name).read_bytes()) == content
        assert gzip.decompress((tmp_path / "built" / name).read_bytes()) == content
    main([str(data_dir), "--out", str(tmp_path / "again")])
    assert capsys.readouterr().out.count("-ubyte.gz") == 4


def test_the_builder_says_what_it_needs(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path), "--out", str(tmp_path / "built")])
    assert exit_.value.code == 1
    assert "lacks train-images-idx3-ubyte" in capsys.readouterr().err
    assert not (tmp_path / "built").exists()
