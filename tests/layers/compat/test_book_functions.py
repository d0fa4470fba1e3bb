"""The book's functions and numerical gradients, against its formulas in float64 loops and its printed numbers."""

import math

import numpy as np
import pytest

import layers
from backend import asarray, asnumpy, xp
from layers.compat import book
from layers.compat.book import (
    col2im,
    cross_entropy_error,
    identity_function,
    im2col,
    mean_squared_error,
    numerical_gradient,
    numerical_gradient_2d,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)
from tests.support.checks import assert_same, frozen, normal

# Chapter 4.2: what a network says of an image of a 2, and what a bad one says
GOOD = [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]
BAD = [0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0]
TWO = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_the_package_exports_all_of_them():
    """The package has the names of common.functions, common.gradient and common.layers, and np."""
    names = """identity_function step_function sigmoid sigmoid_grad relu relu_grad softmax sum_squared_error
        cross_entropy_error softmax_loss numerical_gradient numerical_gradient_2d Relu Sigmoid Affine SoftmaxWithLoss
        Dropout BatchNormalization Convolution Pooling im2col col2im np mean_squared_error"""
    assert set(names.split()) <= set(book.__all__)
    assert all(hasattr(book, name) for name in book.__all__)


@pytest.mark.parametrize(("y", "squares", "entropy"), [(GOOD, 0.0975, 0.510825457099), (BAD, 0.5975, 2.302584092994)])
def test_the_printed_errors(device, y, squares, entropy):
    """Chapters 4.2.1 and 4.2.2, to all digits that the book prints."""
    y = xp.asarray(y)
    for error in (sum_squared_error, mean_squared_error):
        assert abs(float(error(y, xp.asarray(TWO))) - squares) < 1e-15
    for t in (TWO, xp.asarray(TWO), 2, xp.asarray([2])):
        assert abs(float(cross_entropy_error(y, t)) - entropy) < 1e-12


def test_cross_entropy_adds_1e_7(device):
    """An impossible label costs -log(1e-7), and no label is below -log(1 + 1e-7)."""
    y = xp.asarray([[1.0, 0.0], [0.25, 0.75]])
    expected = -(math.log(1e-7) + math.log(0.75 + 1e-7)) / 2
    for t in ([1, 1], [[1], [1]], [[0, 1], [0, 1]], [[0.2, 0.8], [0.0, 5.0]]):
        assert abs(float(cross_entropy_error(y, xp.asarray(t))) - expected) < 1e-14
    assert -1.1e-7 < float(cross_entropy_error(y[0], xp.asarray([1, 0]))) < -0.9e-7
    assert float(layers.cross_entropy_error(y, xp.asarray([1, 1]))) > 300  # the core's: -log of the least number


@pytest.mark.parametrize(
    ("t", "error"),
    [
        ([0, 2], "label 2 at index 1 is out of range: expected 0 to 1"),
        ([-1, 0], "label -1 at index 0"),
        ([0], "labels"),
    ],
)
def test_labels_that_do_not_fit(t, error):
    with pytest.raises(ValueError, match=error):
        cross_entropy_error(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array(t))


@pytest.mark.gpu
def test_a_label_that_is_no_class_makes_nan_on_a_gpu():
    import backend

    with backend.use("cuda"):
        for bad in (2, -1):
            assert math.isnan(cross_entropy_error(xp.asarray([[0.5, 0.5]]), xp.asarray([bad])))


def test_softmax_loss_is_the_cross_entropy_of_softmax(device):
    x = normal((3, 4), "float64")
    shares = np.exp(asnumpy(x))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = -sum(math.log(shares[i, label] + 1e-7) for i, label in enumerate((1, 3, 0))) / 3
    with frozen(x):
        assert abs(float(softmax_loss(x, xp.asarray([1, 3, 0]))) - expected) < 1e-14


def test_elementwise_functions(device):
    """Chapter 3's, at 0 too: there relu_grad is 1 and step_function 0."""
    x = xp.asarray([-2.0, 0.0, 3.0])
    with frozen(x):
        assert identity_function(x) is x
        assert_same(step_function(x), np.array([0, 0, 1]), int)
        assert_same(relu(x), np.array([0.0, 0.0, 3.0]))
        assert_same(relu_grad(x), np.array([0.0, 1.0, 1.0]))
        y = 1 / (1 + np.exp([2.0, 0.0, -3.0]))
        assert abs(asnumpy(sigmoid_grad(x)) - y * (1 - y)).max() < 1e-15
    assert_same(relu(xp.asarray([-1, 2])), np.array([0, 2]))
    assert_same(relu_grad(xp.asarray([-1, 2])), np.array([0, 1]))
    assert_same(step_function(xp.asarray([[-1, 2]])), np.array([[0, 1]]), int)


@pytest.mark.parametrize("value", [0, 0.0, np.float32(0), np.int64(0)])
def test_numbers_are_taken(device, value):
    assert float(sigmoid(value)) == 0.5
    assert float(sigmoid_grad(value)) == 0.25
    assert float(relu(value)) == 0
    assert int(step_function(value)) == 0


def test_sigmoid_and_softmax_overflow_nowhere(device):
    x = xp.asarray([-1e4, 0.0, 1e4])
    assert_same(sigmoid(x), np.array([0.0, 0.5, 1.0]))
    assert_same(softmax(x), np.array([0.0, 0.0, 1.0]))


def test_integers_make_float64(device):
    """As in the book, or products of uint8 pixels and their differences would wrap around."""
    pixels = xp.full((1, 1, 3, 3), 200, "uint8")
    columns = im2col(pixels, 3, 3)
    assert float((columns * columns).sum()) == 9 * 200**2
    assert float(col2im(xp.full((1, 9), 200, "uint8"), (1, 1, 3, 3), 3, 3).sum()) == 9 * 200
    assert float(sum_squared_error(xp.asarray([1], "uint8"), xp.asarray([21], "uint8"))) == 200
    assert_same(softmax(xp.asarray([1, 1])), np.array([0.5, 0.5]))
    assert_same(sigmoid(xp.asarray([0, 0], "uint8")), np.array([0.5, 0.5]))


# -- numerical gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "gradient"), [((3, 4), (6, 8)), ((0, 2), (0, 4)), ((3, 0), (6, 0))])
def test_the_printed_gradients(device, point, gradient):
    """Chapter 4.4, of x0² + x1²."""
    x = xp.asarray(point, "float64")
    for function in (numerical_gradient, numerical_gradient_2d):
        assert abs(asnumpy(function(lambda x: (x**2).sum(), x)) - gradient).max() < 1e-10
    assert_same(x, np.array(point, "float64"))


def test_gradients_of_rows(device):
    """``f`` sees one row at a time; a view of the array itself."""
    X = normal((3, 2), "float64")
    host, seen = asnumpy(X).copy(), []

    def f(row):
        seen.append(row.shape)
        return row[0] ** 2 * row[1]

    found = asnumpy(numerical_gradient_2d(f, X))
    expected = np.stack((2 * host[:, 0] * host[:, 1], host[:, 0] ** 2), axis=1)
    assert abs(found - expected).max() < 1e-8
    assert set(seen) == {(2,)}
    assert_same(X, host)


def test_the_step_is_1e_4_in_every_dtype(device):
    """|x| from 0: (h - h) / 2h = 0, of max(x, 0): 1/2; and x³: h²."""
    for dtype, tolerance in (("float64", 1e-11), ("float32", 1e-6)):
        x = xp.zeros((), dtype)
        assert abs(float(numerical_gradient(lambda x: xp.maximum(x, 0), x)) - 0.5) < tolerance
        assert abs(float(numerical_gradient(lambda x: x**3, x)) - 1e-8) < 1e-8 * 1e-6


def test_restores_the_array_when_the_function_fails(device):
    for calls in (1, 2, 4):
        x, seen = normal((2, 2), "float64"), []
        before = x.copy()

        def fails(x, seen=seen, calls=calls):
            seen.append(1)
            if len(seen) == calls:
                raise ArithmeticError("no")
            return x.sum()

        for function in (numerical_gradient, numerical_gradient_2d):
            seen.clear()
            with pytest.raises(ArithmeticError):
                function(fails, x)
            assert_same(x, before)


@pytest.mark.parametrize("x", [np.array([3, 4]), [3.0, 4.0], 3.0])
def test_integers_cannot_take_a_step(x):
    """In the book an integer array has the gradient 0 everywhere."""
    for function in (numerical_gradient, numerical_gradient_2d):
        with pytest.raises(TypeError, match="needs a floating array"):
            function(lambda x: sum(x), x)


# -- np -------------------------------------------------------------------------------------------------------------


def test_random_numbers_are_numpys(device):
    """The same seed gives NumPy's numbers, on the active device."""
    from layers.compat.book import np as namespace

    def drawn(np):
        np.random.seed(3)
        order = np.arange(6)
        np.random.shuffle(order)
        rng, old = np.random.default_rng(1), np.random.RandomState(1)
        return [
            np.random.randn(2, 3),
            np.random.choice(10, 4),
            np.random.choice(np.arange(5), 2, replace=False),
            np.random.permutation(5),
            np.random.permutation(np.arange(5)),
            np.random.rand(2),
            rng.normal(size=3),
            old.randn(3),
            order,
        ]

    for ours, theirs in zip(drawn(namespace), drawn(np), strict=True):
        assert type(ours) is xp.ndarray
        assert_same(ours, theirs)
    assert isinstance(namespace.random.uniform(-8, -4), float)
    assert isinstance(namespace.random.randn(), float)


def test_other_names_are_the_active_librarys(device):
    from layers.compat.book import np as namespace

    assert type(namespace.zeros(2)) is xp.ndarray
    assert namespace.float32 is np.float32
    assert namespace.errstate is np.errstate or device.kind == "cuda"
    assert {"zeros", "random", "errstate"} <= set(dir(namespace))
    with pytest.raises(AttributeError):
        _ = namespace.no_such_name
    assert_same(asarray([1.0]), namespace.ones(1))
