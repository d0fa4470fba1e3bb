"""The elementwise layers."""

import math

import numpy as np
import pytest

import backend
from backend import xp
from layers import Gelu, LeakyRelu, Relu, Relu6, Sigmoid, Tanh
from tests.support.checks import DTYPES, assert_close, assert_same
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle

IMAGES = (2, 3, 3, 4)


def each(function, x):
    return np.array([function(float(a)) for a in x.flat]).reshape(x.shape)


def elementwise(f, slope, *, bound=lambda x: 0.0, slope_bound=lambda x: 0.0, terms=0, roundings=0):
    """Return the oracle of y = f(x) and dx = dout·slope(x); bounds are on the numbers that are rounded for each."""
    return Oracle(
        lambda p, x: Expected(each(f, x), each(bound, x), terms, roundings),
        lambda p, dout, x: {
            "x": Expected(dout * each(slope, x), abs(dout) * each(slope_bound, x), 2 * terms, 4 * roundings)
        },
    )


def one(x):
    return 1.0


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def gelu_inner(x):
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def gelu(x):
    return x * 0.5 * (1 + math.tanh(gelu_inner(x)))


def gelu_slope(x):
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + math.tanh(gelu_inner(x))) + x * inner / (2 * math.cosh(gelu_inner(x)) ** 2)


RELU = elementwise(lambda x: max(x, 0.0), lambda x: float(x > 0))
RELU6 = elementwise(lambda x: min(max(x, 0.0), 6.0), lambda x: float(0 < x < 6))
LEAKY = elementwise(
    lambda x: x if x > 0 else 0.1 * x, lambda x: 1.0 if x > 0 else 0.1, bound=abs, slope_bound=one, roundings=1
)
# 1 - y is as exact as y is absolutely, so dout·y·(1 - y) errs by dout·y
SIGMOID = elementwise(
    sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)), bound=sigmoid, slope_bound=sigmoid, terms=8, roundings=1
)
TANH = elementwise(
    math.tanh, lambda x: 1 - math.tanh(x) ** 2, bound=lambda x: abs(math.tanh(x)), slope_bound=one, terms=5, roundings=1
)
# 1 + tanh cancels for x < 0: y errs by x, and its slope by the terms it is the sum of
GELU = elementwise(
    gelu, gelu_slope, bound=abs, slope_bound=lambda x: 1 + abs(x) * (1 + 3 * 0.044715 * x**2), terms=12, roundings=1
)

CASES = [
    LayerCase("Relu", lambda draw: Relu(), IMAGES, RELU),
    LayerCase("Relu of a matrix", lambda draw: Relu(), (4, 5), RELU),
    LayerCase("Relu of columns", lambda draw: Relu(), (2, 3, 4, 1), RELU),
    LayerCase("Relu6", lambda draw: Relu6(), IMAGES, RELU6),
    LayerCase("Relu6 of a matrix", lambda draw: Relu6(), (4, 5), RELU6),
    LayerCase("LeakyRelu", lambda draw: LeakyRelu(0.1), IMAGES, LEAKY),
    LayerCase("Sigmoid", lambda draw: Sigmoid(), IMAGES, SIGMOID),
    LayerCase("Tanh", lambda draw: Tanh(), IMAGES, TANH),
    LayerCase("Gelu", lambda draw: Gelu(), IMAGES, GELU),
    LayerCase("Gelu of sequences", lambda draw: Gelu(), (2, 3, 4), GELU),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_relu_leaves_the_gradient_alone(device):
    """The book's Relu.backward writes zeros into dout."""
    layer, dout = Relu(), xp.ones((1, 3), "float32")
    layer.forward(backend.asarray(np.float32([[-1, 0, 2]])))
    assert_same(layer.backward(dout), np.float32([[0, 0, 1]]))
    assert_same(dout, np.ones((1, 3), "float32"))


def test_the_books_sigmoid(device):
    """Chapter 3.2.4."""
    y = backend.asnumpy(Sigmoid().forward(xp.asarray([[-1.0, 1.0, 2.0]])))
    assert abs(y - [[0.26894142, 0.73105858, 0.88079708]]).max() < 5e-9


def test_gelu_of_one(device):
    """0.8412: Hendrycks and Gimpel's approximation, 1.5e-4 below 1·Φ(1) = 0.84134."""
    y = float(Gelu().forward(xp.ones((1, 1)))[0, 0])
    exact = (1 + math.erf(1 / math.sqrt(2))) / 2
    assert round(y, 4) == 0.8412
    assert 1e-4 < exact - y < 2e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_of_the_range(device, dtype):
    """Nothing overflows on the way to a limit, forward or backward, and no warning is given."""
    most = float(np.finfo(dtype).max)
    x = backend.asarray(np.array([[-most, -80, 80, most]], dtype))
    dout = xp.ones((1, 4), dtype)
    for layer, y, dx in (
        (Relu(), [0, 0, 80, most], [0, 0, 1, 1]),
        (Relu6(), [0, 0, 6, 6], [0, 0, 0, 0]),
        (LeakyRelu(0.5), [-most / 2, -40, 80, most], [0.5, 0.5, 1, 1]),
        (Tanh(), [-1, -1, 1, 1], [0, 0, 0, 0]),
        (Gelu(), [0, 0, 80, most], [0, 0, 1, 1]),
    ):
        assert_same(layer.forward(x), np.array([y], dtype))
        assert_same(layer.backward(dout), np.array([dx], dtype))
    y = Sigmoid().forward(x)
    assert_close(y, [[0, math.exp(-80), 1, 1]], dtype, terms=100, magnitude=[[0, math.exp(-80), 0, 0]])


def test_nan_passes(device):
    x = xp.full((1, 1), xp.nan, "float32")
    for layer in (Relu(), Relu6(), LeakyRelu(), Sigmoid(), Tanh(), Gelu()):
        assert bool(xp.isnan(layer.forward(x)).all()), layer


@pytest.mark.parametrize("slope", [0.01, 0.1, 0.3, 0.7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_leaky_relu_passes_gradients_of_the_positive(dtype, slope):
    """dy where x > 0: the number itself, not one rounding away from it."""
    layer, dout = LeakyRelu(slope), np.array([[1, 3, 1 / 3]], dtype)
    layer.forward(np.ones((1, 3), dtype))
    assert_same(layer.backward(dout), dout)


@pytest.mark.parametrize("slope", [-0.1, 1.1, float("nan")])
def test_leaky_relu_refuses_a_slope(slope):
    with pytest.raises(ValueError, match=f"LeakyRelu: slope must be .* at least 0 and at most 1, got {slope}"):
        LeakyRelu(slope)


@pytest.mark.parametrize("layer", [Relu, Relu6, LeakyRelu, Sigmoid, Tanh, Gelu])
def test_refuses_what_does_not_float(layer):
    with pytest.raises(TypeError, match=f"{layer.__name__} needs x as a floating-point array, got int64"):
        layer().forward(np.ones((2, 2), "int64"))
    with pytest.raises(TypeError, match=f"{layer.__name__} needs x as a floating-point array, got list"):
        layer().forward([[1.0]])


def test_repr():
    assert repr(LeakyRelu(0.2)) == "LeakyRelu(slope 0.2)"
    assert [repr(layer) for layer in (Relu(), Sigmoid(), Tanh(), Gelu())] == ["Relu()", "Sigmoid()", "Tanh()", "Gelu()"]
