"""Elementwise activations against their formulas in float64, far out and at zero as well."""

import math

import numpy as np
import pytest

import backend
from backend import asnumpy
from kernels import activations
from kernels.core import native
from tests.support.checks import (
    DTYPES,
    assert_channels_last,
    assert_close,
    assert_same,
    assert_separate,
    check_gradient,
    frozen,
    normal,
    thread_limit,
    variants,
    watched_shares,
    whole,
)


def each(function, *arrays):
    """A function of numbers, one by one."""
    arrays = [np.float64(asnumpy(array)) for array in arrays]
    result = np.zeros(arrays[0].shape)
    for index in np.ndindex(result.shape):
        result[index] = function(*(float(array[index]) for array in arrays))
    return result


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else math.exp(x)


def gelu(x):
    """Through erfc-like form 1 + tanh u = 2 / (1 + exp(-2u)), which does not cancel for negative x."""
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x * sigmoid(2 * u)


CURVES = {"sigmoid": sigmoid, "tanh": math.tanh, "gelu": gelu}
POINTS = [*np.linspace(-12, 12, 97), 1e-3, -1e-3, 60000.0, -60000.0, 0.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CURVES)
def test_curves(device, name, dtype):
    x = backend.asarray(np.array(POINTS, dtype))
    with frozen(x):
        y = getattr(activations, name)(x)
    # 1 + tanh cancels to the left of gelu: the error is then that of 1, times x. The others err relatively.
    cancels = np.minimum(abs(np.float64(asnumpy(x))), 10) if name == "gelu" else 0.0
    expected = each(CURVES[name], x)
    growth = 1 + np.minimum(abs(np.float64(asnumpy(x))), 60)  # exp of a rounded x
    assert_close(y, expected, dtype, terms=8, magnitude=abs(expected) * growth + cancels)
    assert_separate(y, [x])


@pytest.mark.parametrize("shape", [(40,), (5, 8), (2, 3, 4, 5)])
@pytest.mark.parametrize("name", CURVES)
def test_gradients_of_curves(device, name, shape):
    x, dy = normal(shape, "float64") * 2, normal(shape, "float64", 1)
    forward, backward = getattr(activations, name), getattr(activations, name + "_backward")
    held = x if name == "gelu" else forward(x)
    with frozen(dy, held):
        dx = backward(dy, held)
    check_gradient(lambda x: (forward(x) * dy).sum(), [x], [dx])
    assert_separate(dx, [dy, held])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CURVES)
def test_gradients_of_curves_vanish_far_out(device, name, dtype):
    x = backend.asarray(np.array([-np.inf, -60000, 60000, np.inf], dtype)[1:3])
    dy = whole((2,), dtype, most=0) + 1
    backward = getattr(activations, name + "_backward")
    dx = backward(dy, x if name == "gelu" else getattr(activations, name)(x))
    assert_same(dx, np.array([0, 1 if name == "gelu" else 0]), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu(device, dtype):
    """With each of the special numbers at each place of a vector, and behind the last whole one."""
    x = backend.asarray(np.tile(np.array([-np.inf, -1, -0.0, 0.0, 2, np.inf, np.nan], dtype), 33))
    with frozen(x):
        y, positive = activations.relu(x)
    assert_same(y, np.tile(np.array([0, 0, 0, 0, 2, np.inf, np.nan]), 33), dtype)
    assert_same(positive, np.tile(np.array([False, False, False, False, True, True, False]), 33), "bool")
    assert_separate((y, positive), [x])


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu6(device, dtype):
    """With each of the special numbers at each place of a vector, and behind the last whole one."""
    x = backend.asarray(np.tile(np.array([-np.inf, -1, -0.0, 0.0, 2, 6, 7, np.inf, np.nan], dtype), 35))
    with frozen(x):
        y, between = activations.relu6(x)
    assert_same(y, np.tile(np.array([0, 0, 0, 0, 2, 6, 6, 6, np.nan]), 35), dtype)
    assert_same(between, np.tile(np.array([False] * 4 + [True] + [False] * 4), 35), "bool")
    assert_separate((y, between), [x])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slope", [0.0, 0.25, 1.0])
def test_leaky_relu(device, dtype, slope):
    x, dy = whole((50,), dtype), whole((50,), dtype, 1)
    with frozen(x, dy):
        y, positive = activations.leaky_relu(x, slope=slope)
        dx = activations.leaky_relu_backward(dy, positive, slope=slope)
    assert_same(y, each(lambda x: x if x > 0 else slope * x, x), dtype)
    assert_same(dx, each(lambda x, dy: dy if x > 0 else slope * dy, x, dy), dtype)
    assert_separate((y, positive, dx), [x, dy])


def test_sums_and_products(device):
    a, b = whole((2, 3, 4, 5)), whole((2, 3, 4, 5), seed=1)
    with frozen(a, b):
        assert_same(activations.add(a, b), asnumpy(a) + asnumpy(b))
        assert_same(activations.multiply(a, b), asnumpy(a) * asnumpy(b))


@pytest.mark.parametrize("name", ["relu", "relu6", "sigmoid", "tanh", "gelu"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout_gives_channels_last_memory(device, name, dtype):
    function = getattr(activations, name)
    x = normal((2, 3, 4, 5), dtype)
    expected = function(x)
    for _, view in variants(x):
        for actual, wanted in zip(_tuple(function(view)), _tuple(expected), strict=True):
            assert_channels_last(actual)
            assert_same(actual, wanted)


TWO = {"leaky_relu": (0.25,), "scale": (0.75,)}  # names and numbers of what takes an array
PAIRS = ("add", "multiply", "sigmoid_backward", "tanh_backward", "gelu_backward")


def every_result(x, dy):
    """Return what all functions compute of these arrays."""
    results = [getattr(activations, name)(x) for name in ("relu", "relu6", "sigmoid", "tanh", "gelu")]
    results += [getattr(activations, name)(x, *numbers) for name, numbers in TWO.items()]
    results += [getattr(activations, name)(dy, x) for name in PAIRS]
    results.append(activations.leaky_relu_backward(dy, x > 0, 0.25))
    return [array for result in results for array in _tuple(result)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_threads_change_no_bit(device, dtype):
    """Nor does a range's end, which may leave less than a vector."""
    x, dy = normal((1003,), dtype), normal((1003,), dtype, 1)
    expected = every_result(x, dy)
    for count in (2, 3, 5):
        with thread_limit(count), watched_shares() as shares:
            for one, two in zip(every_result(x, dy), expected, strict=True):
                assert_same(one, two)
        assert shares or not native.available() or device.kind == "cuda"


@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_around_a_vector(device, dtype):
    """A number's result does not depend on how many others there are, and nothing behind them is written to."""
    x, dy = normal((40,), dtype), normal((40,), dtype, 1)
    whole_arrays = every_result(x, dy)
    for size in range(1, 36):
        for one, two in zip(every_result(x[:size], dy[:size]), whole_arrays, strict=True):
            assert_same(one, two[:size])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_numbers_that_are_none(device, dtype):
    """NaN stays NaN, and infinities become the limits."""
    x = backend.asarray(np.array([np.nan, np.inf, -np.inf, -0.0], dtype))
    for name, expected in {
        "sigmoid": [np.nan, 1, 0, 0.5],
        "tanh": [np.nan, 1, -1, -0.0],
        "gelu": [np.nan, np.inf, np.nan, -0.0],
    }.items():
        y = getattr(activations, name)(x)
        assert_same(y, np.array(expected), dtype)
        assert np.signbit(asnumpy(y)[3]) == (name != "sigmoid")
    y, positive = activations.leaky_relu(x, 0.5)
    assert_same(y, np.array([np.nan, np.inf, -np.inf, -0.0]), dtype)
    assert_same(positive, np.array([False, True, False, False]), "bool")


def test_two_dtypes_give_the_wider(device):
    a, b = whole((5,)), whole((5,), "float64", 1)
    for one, two in ((a, b), (b, a)):
        assert_same(activations.add(one, two), asnumpy(a) + asnumpy(b), "float64")
        assert_same(activations.tanh_backward(one, two), (1 - asnumpy(two) ** 2) * asnumpy(one), "float64")


@pytest.mark.parametrize("shape", [(0,), (0, 4), (0, 3, 4, 5)])
def test_nothing_in_nothing_out(device, shape):
    for name in ("relu", "sigmoid", "tanh", "gelu"):
        for result in _tuple(getattr(activations, name)(whole(shape))):
            assert result.shape == shape


def _tuple(value):
    return value if isinstance(value, tuple) else (value,)
