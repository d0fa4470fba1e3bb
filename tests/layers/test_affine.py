"""The fully connected layer."""

import copy
import math

import numpy as np
import pytest

import backend
from backend import random, xp
from kernels.core.layout import is_channels_last
from layers import Affine, Relu, Sequential
from tests.support.checks import assert_same, normal, whole
from tests.support.layer_checks import Contract, LayerCase, Oracle, products


def product(a, b):
    return np.array([[math.fsum(row * column) for column in b.T] for row in a]).reshape(len(a), b.shape[1])


def forward(p, x):
    sums = lambda rows, W, b=0: product(rows, W) + b  # noqa: E731
    return products(sums, len(p["W"]) + 1, x.reshape(len(x), -1), *p.values())


def backward(p, dout, x):
    rows, W = x.reshape(len(x), -1), p["W"]
    gradients = {
        "x": products(lambda dout, W: product(dout, W.T).reshape(x.shape), W.shape[1], dout, W),
        "W": products(lambda rows, dout: product(rows.T, dout), len(x), rows, dout),
        "b": products(lambda dout: dout.sum(0), len(x), dout),
    }
    return {name: value for name, value in gradients.items() if name == "x" or name in p}


def affine(inputs, outputs, bias=True):
    return lambda draw: Affine(draw(inputs, outputs), *([draw(outputs)] if bias else []))


CASES = [
    LayerCase("Affine", affine(5, 3), (4, 5), Oracle(forward, backward)),
    LayerCase("Affine of images", affine(12, 3), (2, 3, 2, 2), Oracle(forward, backward)),
    LayerCase("Affine of rows of pixels", affine(12, 2), (2, 3, 1, 4), Oracle(forward, backward)),
    LayerCase("Affine of sequences", affine(6, 4), (3, 2, 3), Oracle(forward, backward)),
    LayerCase("Affine without a bias", affine(5, 3, bias=False), (4, 5), Oracle(forward, backward)),
    LayerCase("Affine of images without a bias", affine(12, 3, bias=False), (2, 3, 2, 2), Oracle(forward, backward)),
    LayerCase("Affine of one number", affine(1, 1), (1, 1), Oracle(forward, backward)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_the_books_example(device):
    """Chapter 5.6: X·W + B of two samples, and dB as the sum over them."""
    W, B = xp.asarray([[0.0, 0, 0]] * 2), xp.asarray([1.0, 2, 3])
    X_dot_W = xp.asarray([[0.0, 0, 0], [10, 10, 10]])
    layer = Affine(xp.eye(3), B)
    assert_same(layer.forward(X_dot_W), np.array([[1.0, 2, 3], [11, 12, 13]]))
    layer.backward(xp.asarray([[1.0, 2, 3], [4, 5, 6]]))
    assert_same(layer.db, np.array([5.0, 7, 9]))
    assert_same(Affine(W, B).forward(xp.ones((1, 2))), np.array([[1.0, 2, 3]]))


@pytest.mark.parametrize("outputs", [5, 9])  # few enough to turn W, and too many
def test_images_are_read_in_logical_order(device, outputs):
    """A flattened image is (C, H, W) whatever its memory: the book's weights fit."""
    x, dout = whole((2, 3, 2, 4)), whole((2, outputs), seed=1)
    W = whole((24, outputs), seed=2)
    images, rows = (Affine(W.copy(), xp.ones(outputs, "float32")) for _ in range(2))
    expected = rows.forward(xp.ascontiguousarray(x.reshape(2, 24)))
    for memory in (x, xp.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
        assert_same(images.forward(memory), expected)
        dx = images.backward(dout)
        assert is_channels_last(dx)
        assert_same(dx.reshape(2, 24), rows.backward(dout))
        assert_same(images.dW, rows.dW)


def test_float16_sums_do_not_overflow(device):
    """65504 is the largest float16; the products here are ±90000, and cancel."""
    layer = Affine(xp.asarray([[300], [-300]], "float16"), xp.ones(1, "float16"))
    assert_same(layer.forward(xp.full((2, 2), 300, "float16")), np.ones((2, 1), "float16"))
    layer.input_gradient = False  # whose numbers really are that large
    layer.backward(xp.asarray([[300], [-300]], "float16"))
    assert_same(layer.dW, np.zeros((2, 1), "float16"))


def test_without_the_input_gradient(device):
    """A first layer owes no dx; what it learns is the same."""
    x, dout = normal((4, 5), seed=1), normal((4, 3), seed=2)
    layer, first = Affine(normal((5, 3)), normal(3)), Affine(normal((5, 3)), normal(3))
    first.input_gradient = False
    for each in (layer, first):
        each.forward(x)
    assert layer.backward(dout).shape == (4, 5)
    assert first.backward(dout) is None
    assert_same(first.dW, layer.dW)
    assert_same(first.db, layer.db)


def test_of_a_size(device):
    layer = Affine.of(50, 4, init="xavier", dtype="float64")
    backend.random.seed(0)
    assert_same(layer.W, backend.random.normal((50, 4), math.sqrt(1 / 50), "float64"))
    assert_same(layer.b, np.zeros(4))
    assert Affine.of(2, 3).W.dtype == "float32"


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("W", "b", "error", "message"),
    [
        (ones(4), ones(4), ValueError, r"W \(inputs, outputs\).*got \(4,\) and \(4,\)"),
        (ones(4, 3), ones(4), ValueError, r"got \(4, 3\) and \(4,\)"),
        (ones(4, 3), ones(1, 3), ValueError, r"got \(4, 3\) and \(1, 3\)"),
        (ones(4, 3, dtype="int64"), ones(3), TypeError, "needs W as a floating-point array, got int64"),
        (ones(4, 3), [0.0] * 3, TypeError, "needs b as a floating-point array, got list"),
        (ones(4, 3), ones(3, dtype="float64"), TypeError, "one dtype, got W float32, b float64"),
    ],
)
def test_refuses_parameters(W, b, error, message):
    with pytest.raises(error, match=message):
        Affine(W, b)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (ones(2, 5), ValueError, r"Affine\(4 → 3\) takes .* 4 numbers per sample, got \(2, 5\)"),
        (ones(2, 2, 3), ValueError, r"4 numbers per sample, got \(2, 2, 3\)"),
        (ones(4), ValueError, r"got \(4,\)"),
        (ones(2, 4, dtype="int64"), TypeError, "needs x as a floating-point array, got int64"),
        ([[0.0] * 4], TypeError, "needs x as a floating-point array, got list"),
    ],
)
def test_refuses_an_input(x, error, message):
    with pytest.raises(error, match=message):
        Affine(ones(4, 3), ones(3)).forward(x)


def test_refuses_a_shape():
    with pytest.raises(ValueError, match=r"takes 4 numbers per sample, got \(5, 1\), 5 numbers"):
        Affine(ones(4, 3), ones(3)).output_shape((5, 1))


def test_repr():
    assert repr(Affine(ones(4, 3), ones(3))) == "Affine(4 → 3)"


@pytest.mark.parametrize("behind", [[], [Relu()]], ids=["alone", "with a relu"])
def test_without_a_bias_the_bits_are_those_of_a_zero_bias(device, behind):
    random.seed(1)
    without = Affine.of(7, 5, bias=False)
    zero = Affine(without.W.copy(), xp.zeros(5, "float32"))
    assert list(without.params) == ["W"]
    assert repr(without) == "Affine(7 → 5, no bias)"
    x, dout = normal((9, 7)), normal((9, 5), seed=1)
    rows = [Sequential(layer, *copy.deepcopy(behind)) for layer in (without, zero)]
    assert_same(rows[0].forward(x), rows[1].forward(x))
    assert_same(rows[0].backward(dout), rows[1].backward(dout))
    assert_same(without.dW, zero.dW)
    assert without.b is None
    assert without.db is None
