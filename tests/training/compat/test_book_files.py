"""The book's data, and what stands between device arrays and files: mnist, pickle and pyplot."""

import collections
import gzip
import pickle as plain
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest

from backend import asnumpy, xp
from tests.support.checks import assert_same
from training.compat.book import mnist, pickle
from training.data import load


@pytest.fixture
def digits(monkeypatch):
    """The embedded digits where the full MNIST would be."""
    monkeypatch.setattr(mnist, "load", lambda name, download: load("mnist10k"))
    return load("mnist10k")


def test_load_mnist(device, digits):
    """The book's defaults and dtypes: float32 pixels of rows, uint8 labels; one-hot labels in float64."""
    (x, t), (x_test, t_test) = mnist.load_mnist()
    assert_same(x[:50], (digits.train_images[:50].reshape(50, 784).astype("float32") / 255).astype("float32"))
    assert_same(t, digits.train_labels, "uint8")
    assert x_test.shape == (2000, 784)
    assert t_test.dtype == "uint8"
    (x, t), _ = mnist.load_mnist(False, False, True)
    assert_same(x[:50], digits.train_images[:50])
    assert_same(t[:50], np.eye(10)[digits.train_labels[:50]])
    x[0] = 1  # not read-only
    assert_same(mnist.load_mnist(False, False)[0][0][:1], digits.train_images[:1])


def test_constants_of_mnist():
    assert mnist.key_file == {
        "train_img": "train-images-idx3-ubyte.gz",
        "train_label": "train-labels-idx1-ubyte.gz",
        "test_img": "t10k-images-idx3-ubyte.gz",
        "test_label": "t10k-labels-idx1-ubyte.gz",
    }
    assert (mnist.train_num, mnist.test_num, mnist.img_dim, mnist.img_size) == (60000, 10000, (1, 28, 28), 784)
    assert all(hasattr(mnist, name) for name in mnist.__all__)


def test_init_mnist_writes_the_books_pickle(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "dataset_dir", str(tmp_path / "new"))
    monkeypatch.setattr(mnist, "save_file", str(tmp_path / "new" / "mnist.pkl"))
    mnist.download_mnist()
    mnist.init_mnist()
    arrays = plain.loads((tmp_path / "new" / "mnist.pkl").read_bytes())
    assert set(arrays) == set(mnist.key_file)
    assert_same(arrays["test_img"], digits.test_images.reshape(-1, 784))
    assert_same(arrays["train_label"], digits.train_labels)


@pytest.mark.data
def test_the_full_set(data_dir, monkeypatch):
    """Against the bytes of the files."""
    monkeypatch.setenv("XPNET_DATA_DIR", str(data_dir))
    (_, t), (x_test, _) = mnist.load_mnist(normalize=False)
    with gzip.open(data_dir / "mnist" / mnist.key_file["train_label"]) as file:
        assert asnumpy(t).tobytes() == file.read()[8:]
    with gzip.open(data_dir / "mnist" / mnist.key_file["test_img"]) as file:
        assert asnumpy(x_test).tobytes() == file.read()[16:]


# -- pickle ---------------------------------------------------------------------------------------------------------


def test_files_have_arrays_of_the_host(device, tmp_path):
    """The standard library reads them, without a GPU; ours brings them to the device, each array once."""
    shared = xp.arange(3.0)
    network = SimpleNamespace(W=shared, parts=[xp.ones(2), (shared, "text")], none=None)
    saved = {"W1": shared, "network": network, "names": np.array(["a"]), "ordered": collections.OrderedDict(a=shared)}
    with open(tmp_path / "params.pkl", "wb") as file:
        pickle.dump(saved, file)
    with open(tmp_path / "params.pkl", "rb") as file:
        on_host = plain.load(file)
    assert type(on_host["W1"]) is np.ndarray
    assert type(on_host["network"].parts[1][0]) is np.ndarray
    with open(tmp_path / "params.pkl", "rb") as file:
        loaded = pickle.load(file)
    with open(tmp_path / "params.pkl", "rb") as file:
        unpickled = pickle.Unpickler(file).load()
    for again in (loaded, unpickled, pickle.loads(pickle.dumps(saved, plain.HIGHEST_PROTOCOL))):
        assert type(again["W1"]) is xp.ndarray
        assert_same(again["W1"], np.arange(3.0))
        assert again["network"].W is again["W1"] is again["network"].parts[1][0] is again["ordered"]["a"]
        assert again["network"].parts[1][1] == "text"
        assert again["names"].tolist() == ["a"]
    assert type(saved["W1"]) is xp.ndarray  # what was saved stays where it was


def test_other_names_are_pickles():
    assert pickle.HIGHEST_PROTOCOL == plain.HIGHEST_PROTOCOL
    assert set(pickle.__all__) == set(plain.__all__)
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(b"no pickle")


def test_cycles_and_named_tuples(device):
    point = collections.namedtuple("point", "x y")
    globals()["point"] = point
    point.__module__, point.__qualname__ = __name__, "point"
    cycle: list = [xp.ones(1)]
    cycle.append(cycle)
    loaded = pickle._on_device([cycle, point(np.ones(1), 2)])
    assert loaded[0][1] is loaded[0]
    assert loaded[1]._fields == ("x", "y")
    assert type(loaded[1].x) is xp.ndarray


# -- pyplot ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def plt():
    mpl.use("Agg")
    from training.compat.book import pyplot

    yield pyplot
    pyplot.close("all")


def test_plots_take_device_arrays(device, plt):
    x, y = xp.arange(3.0), xp.asarray([1.0, 4.0, 9.0])
    (line,) = plt.plot(x, y, "o-")
    assert line.get_xydata().tolist() == [[0, 1], [1, 4], [2, 9]]
    (line,) = plt.plot([xp.asarray(2.0), 3.0], marker="o", markevery=2)  # a list of losses
    assert line.get_ydata().tolist() == [2, 3]
    plt.ylim(0, xp.asarray(5.0))
    assert plt.gca().get_ylim() == (0, 5)
    figure = plt.figure()
    axes = figure.add_subplot(2, 2, 1, xticks=[], yticks=[])
    assert axes.imshow(y.reshape(1, 3), cmap=plt.cm.gray_r).get_array().tolist() == [[1, 4, 9]]
    counts, _, _ = plt.subplot(1, 2, 2).hist(y, 3, range=(0, 9))
    assert counts.tolist() == [1, 1, 1]
    plt.quiver(x, y, -x, -y)
    plt.contour(*xp.meshgrid(x, x), xp.outer(x, x))
    plt.scatter(x=x, y=y)
    figure.canvas.draw()


def test_images_are_read_onto_the_device(device, plt, tmp_path):
    plt.imsave(tmp_path / "a.png", np.eye(4), cmap="gray")
    image = plt.imread(tmp_path / "a.png")
    assert type(image) is xp.ndarray
    assert image.shape == (4, 4, 4)
