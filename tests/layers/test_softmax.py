"""Softmax, alone and with the loss."""

import math

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers import Softmax, SoftmaxWithLoss
from tests.support import oracles
from tests.support.checks import assert_close, assert_same, normal
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle

IMAGES = N, C, H, W = (2, 3, 3, 4)


def reach(x):
    """1 + max - min of each row: x - max errs by so many eps, and exp as much relatively."""
    return 1 + x.max(1, keepdims=True) - x.min(1, keepdims=True)


def softmax(rows=lambda x: x, back=lambda y: y):
    def forward(p, x):
        y = oracles.softmax(rows(x))
        return Expected(back(y), back(y * reach(rows(x))), y.shape[1] + 6, 1)

    def backward(p, dout, x):
        y, d = oracles.softmax(rows(x)), rows(dout)
        dx = np.array([(np.diag(row) - np.outer(row, row)) @ upstream for row, upstream in zip(y, d, strict=True)])
        bound = y * (abs(d) + (abs(d) * y).sum(1, keepdims=True)) * reach(rows(x))
        return {"x": Expected(back(dx), back(bound), 2 * y.shape[1] + 12, 5)}

    return Oracle(forward, backward)


PIXELS = softmax(
    lambda x: x.transpose(0, 2, 3, 1).reshape(-1, C), lambda y: y.reshape(N, H, W, C).transpose(0, 3, 1, 2)
)


def loss(p, x, t):
    return Expected(oracles.softmax_cross_entropy(x, t), reach(x).mean(), x.shape[1] + len(x) + 8)


def loss_backward(p, dout, x, t):
    dx = oracles.softmax_cross_entropy_backward(x, t) * dout
    bound = (oracles.softmax(x) * reach(x) + 1) * abs(dout) / len(x)
    return {"x": Expected(dx, bound, x.shape[1] + 8, 4)}


def labels(array):
    return lambda: (backend.asarray(array),)


LOSS = Oracle(loss, loss_backward)
INDICES = np.array([2, 0, 4])
CASES = [
    LayerCase("Softmax", lambda draw: Softmax(), (4, 5), softmax()),
    LayerCase("Softmax of pixels", lambda draw: Softmax(), IMAGES, PIXELS),
    *(
        LayerCase(
            f"SoftmaxWithLoss of {name}", lambda draw: SoftmaxWithLoss(), (3, 5), LOSS, args=labels(t), widens=True
        )
        for name, t in (
            ("indices", INDICES),
            ("bytes", INDICES.astype("uint8")),
            ("one-hot labels", np.eye(5, dtype="int64")[INDICES]),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_the_books_softmax(device):
    """Chapter 3.5."""
    y = asnumpy(Softmax().forward(xp.asarray([[0.3, 2.9, 4.0], [1010, 1000, 990]])))
    assert abs(y[0] - [0.01821127, 0.24519181, 0.73659691]).max() < 5e-9
    assert abs(y[1] - [9.99954600e-01, 4.53978686e-05, 2.06106005e-09]).max() < 5e-9


def test_classes_of_images_are_channels(device):
    x = normal(IMAGES)
    y = Softmax().forward(x)
    assert_close(y.sum(1), np.ones((N, H, W)), "float32", terms=C + 6, magnitude=4)
    assert_close(y[1, :, 2, 3], oracles.softmax(asnumpy(x)[1:, :, 2, 3])[0], "float32", terms=C + 6, magnitude=4)


def test_equal_scores_lose_the_logarithm_of_the_classes(device):
    layer = SoftmaxWithLoss()
    found = layer.forward(xp.zeros((4, 10), "float64"), xp.zeros(4, "int64"))
    assert abs(float(found) - math.log(10)) < 1e-15
    assert found.shape == ()
    assert found is layer.loss
    assert_close(layer.y, np.full((4, 10), 0.1), "float64", terms=1, magnitude=0.1)


def test_gradient_is_scaled(device):
    """The book's backward drops ``dout``; its default of 1 is y - t over the batch."""
    x, t = normal((4, 5), "float64"), xp.asarray([0, 1, 2, 3])
    layer = SoftmaxWithLoss()
    layer.forward(x, t)
    dx = layer.backward()
    assert_close(dx, asnumpy(layer.y - xp.eye(5)[t]) / 4, "float64", terms=4, magnitude=1)
    for dout in (3, 0.5, np.float32(0.5), xp.asarray(0.5)):
        assert_close(layer.backward(dout), asnumpy(dx) * float(dout), "float64", terms=2, magnitude=1)


@pytest.mark.parametrize("dout", [1, 1.0, np.float64(1.0), np.float32(1.0)])
def test_scale_keeps_the_dtype(device, dout):
    layer = SoftmaxWithLoss()
    layer.forward(normal((2, 3)), xp.asarray([0, 1]))
    assert layer.backward(dout).dtype == "float32"


def test_indices_and_one_hot_labels_agree(device):
    x, t = normal((6, 4)), np.array([3, 0, 1, 1, 2, 3])
    seen = []
    for form in (t, np.eye(4, dtype="float32")[t], np.eye(4, dtype="uint8")[t]):
        layer = SoftmaxWithLoss()
        seen.append((layer.forward(x, backend.asarray(form)), layer.backward()))
    for value, dx in seen[1:]:
        assert_close(value, float(seen[0][0]), "float32", terms=10, magnitude=4)
        assert_close(dx, asnumpy(seen[0][1]), "float32", terms=2, magnitude=1)


def test_large_scores_neither_overflow_nor_vanish(device):
    """The logarithm of a probability that rounds to 0 is finite: score minus log-sum-exp."""
    layer = SoftmaxWithLoss()
    found = layer.forward(xp.asarray([[3e4, -3e4]], "float32"), xp.asarray([1]))
    assert float(found) == 6e4
    assert_same(layer.backward(), np.float32([[1, -1]]))


def test_loss_of_float16_scores_is_exact_to_float32(device):
    """Scores far apart: their difference from the largest needs more than float16 has."""
    x = np.float16([[1024.5, -1023.5, 0.0625], [7.25, 1000.5, 3.0]])
    found = SoftmaxWithLoss().forward(backend.asarray(x), xp.asarray([2, 0]))
    assert_close(found, oracles.softmax_cross_entropy(x, [2, 0]), "float32", terms=8, magnitude=2048)


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("x", "t", "error", "message"),
    [
        (ones(3), np.zeros(3, int), ValueError, r"scores are \(N, classes\), got shape \(3,\)"),
        (ones(2, 3), np.zeros(3, int), ValueError, r"scores of \(2, 3\) are \(2,\) or \(2, 3\), got \(3,\)"),
        (ones(2, 3), np.zeros((2, 4)), ValueError, r"got \(2, 4\)"),
        (ones(2, 3), np.zeros(2), TypeError, "class indices, of an integer dtype, got float64"),
        (ones(2, 3), np.array(["a", "b"]), TypeError, "got <U1"),
        (ones(2, 3), np.array([0, 1], object), TypeError, "got object"),
        (ones(2, 3), [0, 1], TypeError, "labels are an array, not list"),
        (
            ones(2, 1),
            np.array([0, 0]),
            ValueError,
            "SoftmaxWithLoss: expected a score for each class",
        ),
        (ones(2, 1), np.ones((2, 1)), ValueError, "one score per sample"),
        (ones(2, 3), np.array([0, 3]), ValueError, "label 3 at index 1 is out of range: expected 0 to 2"),
        (ones(2, 3), np.array([-1, 0]), ValueError, "label -1 at index 0"),
        (ones(2, 3, dtype="int64"), np.array([1, 0]), TypeError, "SoftmaxWithLoss needs x as a floating-point array"),
    ],
)
def test_refuses(x, t, error, message):
    with pytest.raises(error, match=message):
        SoftmaxWithLoss().forward(x, t)


def test_softmax_refuses_integers():
    with pytest.raises(TypeError, match="Softmax needs x as a floating-point array, got int64"):
        Softmax().forward(np.ones((2, 3), "int64"))


def test_repr():
    assert repr(Softmax()) == "Softmax()"
    assert repr(SoftmaxWithLoss()) == "SoftmaxWithLoss()"
