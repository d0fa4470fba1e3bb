"""Subclasses of NumPy's arrays: those that compute by other rules are refused, others are arrays."""

import numpy as np
import pytest

import backend
from layers import Affine, BatchNormalization, Gelu, Relu, Sigmoid, Softmax, SoftmaxWithLoss, Tanh

SQUARE = np.arange(9.0).reshape(3, 3) - 4
OTHERS = [(np.asarray(SQUARE).view(np.matrix), r"numpy\.asarray"), (np.ma.masked_less(SQUARE, 0), r"filled\(value\)")]
LAYERS = [
    *(Relu, Sigmoid, Tanh, Gelu, Softmax),
    lambda: Affine(np.ones((3, 2)), np.ones(2)),
    lambda: BatchNormalization(np.ones(3), np.ones(3)),
]


pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # about numpy.matrix


@pytest.fixture(autouse=True)
def on_the_cpu():
    with backend.use("cpu"):
        yield


@pytest.mark.parametrize(("array", "remedy"), OTHERS)
@pytest.mark.parametrize("make", LAYERS)
def test_other_rules_are_refused(make, array, remedy):
    layer = make()
    with pytest.raises(TypeError, match=remedy):
        layer.forward(array)
    layer.forward(SQUARE[:, :3])
    with pytest.raises(TypeError, match=remedy):
        layer.backward(array[:, :2] if isinstance(layer, Affine) else array)


@pytest.mark.parametrize(("array", "remedy"), OTHERS)
def test_of_a_loss(array, remedy):
    with pytest.raises(TypeError, match=remedy):
        SoftmaxWithLoss().forward(array, np.array([0, 1, 2]))
    with pytest.raises(TypeError, match=remedy):
        SoftmaxWithLoss().forward(SQUARE, array)


def test_a_mapped_file_is_an_array(tmp_path):
    np.save(tmp_path / "x.npy", SQUARE)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.array_equal(Sigmoid().forward(mapped), Sigmoid().forward(SQUARE))
