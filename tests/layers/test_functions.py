"""The functions of arrays that ``layers`` exports, with the book's printed numbers."""

import math

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers import col2im, cross_entropy_error, im2col, numerical_gradient, relu, sigmoid, softmax
from layers.compat import book
from layers.compat.course import eval_numerical_gradient
from tests.support import oracles
from tests.support.checks import DTYPES, assert_close, assert_same, assert_separate, frozen, normal, variants, whole
from tests.support.oracles import Geometry

# Chapter 4.2: what a network says of an image of a 2, and what a bad one says
Y = [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]
BAD = [0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0]
TWO = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("y", "expected"), [(Y, 0.510825457099338), (BAD, 2.302584092994546)])
def test_the_books_cross_entropy(device, y, expected):
    """Chapter 4.2.2, whose logarithm is of y + 1e-7: 2e-7 and 1e-6 off the true one."""
    y = xp.asarray(y)
    for t in (TWO, xp.asarray(TWO), 2):
        assert abs(float(cross_entropy_error(y, t)) - expected) < 1e-6 + 1e-9


def test_cross_entropy_is_the_mean_over_the_batch(device):
    y, t = xp.asarray([Y, BAD]), xp.asarray([2, 2])
    expected = -(math.log(0.6) + math.log(0.1)) / 2
    assert abs(float(cross_entropy_error(y, t)) - expected) < 1e-15
    assert abs(float(cross_entropy_error(y, xp.eye(10)[t])) - expected) < 1e-15


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_of_an_impossible_label_is_finite(device, dtype):
    y = backend.asarray(np.array([[1, 0]], dtype))
    for t in (xp.asarray([1]), xp.asarray([[0, 1]])):
        assert 80 < float(cross_entropy_error(y, t)) < 1000


def test_the_books_softmax(device):
    """Chapter 3.5.1 and 3.5.2: of one sample, and of scores whose exponentials would overflow."""
    for scores, expected in (
        ([0.3, 2.9, 4.0], [0.01821127, 0.24519181, 0.73659691]),
        ([1010.0, 1000, 990], [9.99954600e-01, 4.53978686e-05, 2.06106005e-09]),
    ):
        assert abs(asnumpy(softmax(xp.asarray(scores))) - expected).max() < 5e-9
        batch = softmax(xp.asarray([scores, scores]))
        assert_same(batch[1], softmax(xp.asarray(scores)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)])
def test_softmax_is_along_the_last_axis(device, dtype, shape):
    x = normal(shape, dtype)
    with frozen(x):
        y = softmax(x)
    assert_separate(y, [x])
    expected = oracles.softmax(asnumpy(x).astype(np.float64).reshape(-1, shape[-1])).reshape(shape)
    assert_close(y, expected, dtype, terms=12, magnitude=8 * expected)


def test_the_books_sigmoid(device):
    """Chapter 3.2.4."""
    assert abs(asnumpy(sigmoid(xp.asarray([-1.0, 1.0, 2.0]))) - [0.26894142, 0.73105858, 0.88079708]).max() < 5e-9


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_and_relu_of_any_shape(device, dtype):
    for shape in ((), (4,), (2, 3), (2, 3, 2, 2)):
        x = normal(shape, dtype)
        host = asnumpy(x).astype(np.float64)
        with frozen(x):
            seen, positive = sigmoid(x), relu(x)
        assert_close(seen, 1 / (1 + np.exp(-host)), dtype, terms=8, magnitude=1)
        assert_same(positive, np.maximum(host, 0), dtype)


# -- im2col and col2im --------------------------------------------------------------------------------------------


def test_the_books_shapes(device):
    """Chapter 7.4.3."""
    assert im2col(xp.zeros((1, 3, 7, 7)), 5, 5, stride=1, pad=0).shape == (9, 75)
    assert im2col(xp.zeros((10, 3, 7, 7)), 5, 5).shape == (90, 75)
    assert col2im(xp.zeros((90, 75)), (10, 3, 7, 7), 5, 5, stride=1, pad=0).shape == (10, 3, 7, 7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_im2col_and_back(device, dtype):
    """Columns are channel, row, column of the window, as the book's, in the dtype of the images."""
    geometry, shape = Geometry((3, 2), (2, 2), (1, 1, 1, 1)), (2, 3, 5, 4)
    x = whole(shape, dtype)
    expected = oracles.im2col(asnumpy(x), geometry)
    for layout, view in variants(x):
        with frozen(view):
            columns = im2col(view, 3, 2, stride=2, pad=1)
        assert_separate(columns, [view])
        assert_same(columns, expected, dtype), layout
    with frozen(columns):
        back = col2im(columns, shape, 3, 2, stride=2, pad=1)
    assert_same(back, oracles.col2im(expected, shape, geometry), dtype)


def test_a_convolution_as_the_book_writes_it(device):
    """Chapter 7.4.4: columns times filters, reshaped, with the channels put first."""
    x, W = whole((2, 3, 5, 4), seed=1), whole((4, 3, 3, 3), seed=2)
    out = im2col(x, 3, 3, 1, 1) @ W.reshape(4, -1).T
    out = out.reshape(2, 5, 4, -1).transpose(0, 3, 1, 2)
    expected = oracles.convolution(asnumpy(x), asnumpy(W), None, Geometry((3, 3), pads=(1, 1, 1, 1)))
    assert_same(out, expected, "float32")


# -- numerical_gradient -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "gradient"), [((3, 4), (6, 8)), ((0, 2), (0, 4)), ((3, 0), (6, 0))])
def test_the_books_gradients(device, point, gradient):
    """Chapter 4.4: of x0² + x1², whose central differences are exact but for rounding."""
    found = numerical_gradient(lambda x: (x**2).sum(), xp.asarray(point, "float64"))
    assert abs(asnumpy(found) - gradient).max() < 1e-10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3), (2, 0)])
def test_gradient_of_any_shape(device, shape, dtype):
    """Of a linear function, which central differences meet but for rounding: eps·|f| / step."""
    x, slope = normal(shape, dtype, 1), asnumpy(normal(shape, dtype, 2)).astype(np.float64)
    weights = backend.asarray(slope)
    found = numerical_gradient(lambda x: (x * weights).sum(), x)
    assert found.dtype == dtype
    assert found.shape == shape
    step = {"float64": 1e-4, "float32": 1e-2}.get(dtype, 1e-1)
    rounding = float(np.finfo(dtype).eps) * (1 + 20 / step if dtype == "float64" else 4)
    assert abs(asnumpy(found).astype(np.float64) - slope).max(initial=0) < rounding * max(abs(slope).max(initial=1), 1)


def test_gradient_through_other_strides(device):
    """(x³)' = 3x², of which central differences with h = 1e-4 are h² = 1e-8 off."""
    for _, x in variants(normal((2, 3), "float64")):
        found = numerical_gradient(lambda x: (x**3).sum(), x)
        assert abs(asnumpy(found - 3 * x**2)).max() < 1e-8 + 1e-10


def test_gradient_in_place(device):
    """Book code ignores the argument: ``lambda W: net.loss(x, t)`` reads the array where it lies."""
    x = normal(3, "float64")
    found = numerical_gradient(lambda _: (x**2).sum(), x)
    assert abs(asnumpy(found - 2 * x)).max() < 1e-10


@pytest.mark.parametrize(
    "gradient", [numerical_gradient, book.numerical_gradient, lambda f, x: eval_numerical_gradient(f, x, verbose=False)]
)
def test_gradient_of_a_function_that_returns_a_view(device, gradient):
    """What was returned for one step must not change with the next: on a GPU ``x[0]`` is a view as well."""
    x = normal(3, "float64")
    for view in (lambda x: x[1], lambda x: x[1, ...], lambda x: x[1:2].reshape(())):
        assert abs(asnumpy(gradient(view, x)) - [0, 1, 0]).max() < 1e-10


@pytest.mark.parametrize("gradient", [numerical_gradient, book.numerical_gradient, eval_numerical_gradient])
def test_refuses_an_array_that_cannot_be_changed(gradient):
    calls = []
    with pytest.raises(ValueError, match="needs an array that it can change, got a read-only one: pass a copy"):
        gradient(calls.append, np.broadcast_to(np.ones(1), (3,)))
    assert calls == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_restores_the_array(device, dtype):
    """To the bit: x + h - h would not be x."""
    x = normal((3, 4), dtype)
    before = x.copy()
    numerical_gradient(lambda x: x.sum(), x)
    assert asnumpy(x).tobytes() == asnumpy(before).tobytes()


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_restores_the_array_when_the_function_fails(device, calls):
    x = normal((3, 4))
    before, seen = x.copy(), []

    def fails(x):
        seen.append(x)
        if len(seen) == calls:
            raise ArithmeticError("no")
        return x.sum()

    with pytest.raises(ArithmeticError, match="no"):
        numerical_gradient(fails, x)
    assert asnumpy(x).tobytes() == asnumpy(before).tobytes()


@pytest.mark.parametrize(
    ("x", "given"), [(np.array([3, 4]), "int64"), (np.array([True]), "bool"), ([3.0, 4.0], "list"), (3.0, "float")]
)
def test_refuses_what_cannot_take_a_small_step(x, given):
    calls = []
    with pytest.raises(TypeError, match=f"needs a floating array, got {given}"):
        numerical_gradient(calls.append, x)
    assert calls == []


def test_integers_numbers_and_lists_are_no_trap():
    """An integer array must not come back as zeros, and what the book writes in a shell works."""
    assert_same(sigmoid(np.array([0, 1])), sigmoid(np.array([0.0, 1.0])))
    assert_same(softmax(np.array([1, 2])), softmax(np.array([1.0, 2.0])))
    assert_same(relu(np.array([-1, 2])), np.array([0, 2]))  # as in the book
    assert float(sigmoid(0.0)) == 0.5
    assert_same(softmax([0.0, 0.0]), np.array([0.5, 0.5]))
