"""The book's layers: their formulas in float64 loops, its defaults, and what book code hands to them."""

import copy
import math

import numpy as np
import pytest

import layers
from backend import asarray, asnumpy, use, xp
from layers.compat.book import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Pooling,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
)
from tests.support import oracles
from tests.support.checks import assert_same, frozen, normal
from tests.support.oracles import Geometry


def near(actual, expected, tolerance=1e-12):
    actual = asnumpy(actual)
    assert actual.shape == np.shape(expected), f"shape {actual.shape}, expected {np.shape(expected)}"
    assert abs(actual - expected).max(initial=0) < tolerance


# -- affine and convolution -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("b", [0, 2.5, [1, 2, 3], [[1.0, 2.0, 3.0]], "float32", "float64"])
@pytest.mark.parametrize("x_dtype", ["uint8", "float32", "float64"])
def test_affine_takes_what_numpy_takes(device, b, x_dtype):
    """y = x·W + b, dx = dout·Wᵀ, dW = xᵀ·dout, db = Σ dout, for images too."""
    W = normal((8, 3), "float64", 1)
    x = asarray(np.arange(16).reshape(2, 2, 2, 2).astype(x_dtype))
    b = xp.ones(3, b) if isinstance(b, str) else b if isinstance(b, (int, float)) else xp.asarray(b)
    dout = normal((2, 3), "float64", 2)
    layer = Affine(W, b)
    assert layer.W is W
    assert layer.dW is None
    with frozen(W, x, dout):
        y, dx = layer.forward(x), layer.backward(dout)
    rows, host_b = asnumpy(x).reshape(2, 8).astype("float64"), asnumpy(b) if hasattr(b, "get") else np.asarray(b)
    near(y, rows @ asnumpy(W) + host_b)
    near(dx, (asnumpy(dout) @ asnumpy(W).T).reshape(x.shape))
    near(layer.dW, rows.T @ asnumpy(dout))
    near(layer.db, asnumpy(dout).sum(axis=0))
    assert layer.x is not None


@pytest.mark.parametrize("b", [0, 1.5, [3], [2, -1]])
def test_convolution_takes_what_numpy_takes(device, b):
    """``Convolution(W, 0)`` of the filter pictures, integer biases, filters and images."""
    W = asarray(np.arange(-4, 14).reshape(2, 1, 3, 3))
    x = asarray(np.arange(40).reshape(2, 1, 4, 5).astype("uint8"))
    layer = Convolution(W, b if isinstance(b, (int, float)) else xp.asarray(b), pad=1)
    with frozen(W, x):
        y = layer.forward(x)
        dx = layer.backward(xp.ones(y.shape, "float32"))
    geometry = Geometry((3, 3), pads=(1, 1, 1, 1))
    biases = np.broadcast_to(np.asarray(b, "float64"), 2)
    host = asnumpy(x).astype("float64")
    near(y, oracles.convolution(host, asnumpy(W), biases, geometry))
    ones = np.ones(y.shape)
    near(dx, oracles.convolution_backward_input(ones, asnumpy(W), x.shape, geometry))
    near(layer.dW, oracles.convolution_backward_weight(host, ones, W.shape, geometry))
    near(layer.db, np.full(2, 40.0))


@pytest.mark.parametrize(("W", "x", "expected"), [("float32", "float32", "float32"), ("float32", "float64", "float64")])
def test_dtypes_are_numpys(device, W, x, expected):
    """float32 stays float32, and does not narrow a float64 input."""
    layer = Affine(xp.ones((3, 2), W), 0)
    assert layer.forward(xp.ones((1, 3), x)).dtype == expected
    assert layer.backward(xp.ones((1, 2))).dtype == expected


def test_parameters_are_read_anew_in_each_forward(device):
    """An optimizer changes them in place, ``load_params`` replaces them."""
    params = {"W": xp.ones((2, 1)), "b": xp.zeros(1)}
    layer, x = Affine(params["W"], params["b"]), xp.ones((1, 2))
    params["W"] -= 0.5
    near(layer.forward(x), [[1.0]])
    layer.W = xp.full((2, 1), 3.0)
    near(layer.forward(x), [[6.0]])


def test_what_does_not_fit_is_refused():
    W, filters = np.ones((3, 2)), np.ones((2, 1, 3, 3))
    with pytest.raises(ValueError, match=r"b of Affine must be one number or have shape \(2,\), got \(3,\)"):
        Affine(W, np.zeros(3)).forward(np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"b of Convolution must be one number or have shape \(2,\), got \(4,\)"):
        Convolution(filters, np.zeros(4)).forward(np.ones((1, 1, 3, 3)))
    with pytest.raises(ValueError, match="3 numbers per sample"):
        Affine(W, 0).forward(np.ones((1, 4)))
    with pytest.raises(TypeError, match="expected numbers"):
        Affine(W, 0).forward(np.array([["a"]]))
    for layer in (Sigmoid(), Dropout(), Relu()):
        layer.forward(np.ones((2, 3)))
        with pytest.raises(ValueError, match=r"\(2, 3\)"):
            layer.backward(np.ones(3))
    with pytest.raises(RuntimeError, match="needs a forward"):
        Affine(W, 0).backward(np.ones((1, 2)))


def test_numbers_are_samples_of_one_feature(device):
    layer = Affine(xp.asarray([[2.0, 3.0]]), 0)
    near(layer.forward(xp.asarray([1.0, 10.0])), [[2.0, 3.0], [20.0, 30.0]])
    near(layer.backward(xp.ones((2, 2))), [5.0, 5.0])


# -- pooling --------------------------------------------------------------------------------------------------------


def test_pooling_has_a_stride_of_two(device):
    """The core's has 1. Integers make float64, as the book's im2col does."""
    x = asarray(np.array([[5, 1, 2, 2], [0, 5, 3, 4], [7, 7, 0, 0], [7, 7, 0, 1]], "uint8").reshape(1, 1, 4, 4))
    layer = Pooling(2, 2)
    assert layers.Pooling(2, 2).stride == 1
    with frozen(x):
        assert_same(layer.forward(x), np.array([[[[5.0, 4.0], [7.0, 1.0]]]]))
        dx = layer.backward(asarray(np.array([[[[1.0, 2.0], [3.0, 4.0]]]], "float32")))
    expected = [[1, 0, 0, 0], [0, 0, 0, 2], [3, 0, 0, 0], [0, 0, 0, 4]]  # the first of equals
    assert_same(dx, np.array(expected, "float64").reshape(1, 1, 4, 4))
    assert layer.output_shape((1, 4, 4)) == (1, 2, 2)


# -- batch normalization --------------------------------------------------------------------------------------------


def normalized(x, gamma, beta, dout):
    """y, dx, dgamma, dbeta of the book's formulas for (N, D), with ε = 1e-6, in loops over columns."""
    y, dx = np.zeros(x.shape), np.zeros(x.shape)
    n = len(x)
    for d in range(x.shape[1]):
        centered = x[:, d] - sum(x[:, d]) / n
        sigma = math.sqrt(sum(centered**2) / n + 1e-6)
        y[:, d] = gamma[d] * centered / sigma + beta[d]
        g = gamma[d] * dout[:, d] / sigma
        dx[:, d] = g - sum(g) / n - centered * sum(g * centered) / n / sigma**2
    hats = np.stack([(x[:, d] - x[:, d].mean()) / math.sqrt(x[:, d].var() + 1e-6) for d in range(x.shape[1])], axis=1)
    return y, dx, (hats * dout).sum(axis=0), dout.sum(axis=0)


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 2, 1)])
@pytest.mark.parametrize("scalar", [False, True])
def test_batch_normalization(device, shape, scalar):
    """Of images each number of a sample is normalized by itself; γ and β may be numbers. The data make ε count."""
    x, dout = normal(shape, "float64") * 1e-3, normal(shape, "float64", 1)
    gamma, beta = (2, 1) if scalar else (normal(6, "float64", 2), normal(6, "float64", 3))
    layer = BatchNormalization(gamma, beta)
    with frozen(x, dout):
        y, dx = layer.forward(x), layer.backward(dout)
    host = [np.full(6, float(p)) if scalar else asnumpy(p) for p in (gamma, beta)]
    rows = asnumpy(x).reshape(4, 6)
    expected = normalized(rows, *host, asnumpy(dout).reshape(4, 6))
    for found, right in zip((y, dx, layer.dgamma, layer.dbeta), expected, strict=True):
        near(asnumpy(found).reshape(right.shape), right, 1e-8)
    near(layer.running_mean, 0.1 * rows.mean(axis=0))
    near(layer.running_var, 0.1 * rows.var(axis=0))  # it begins with 0, the core's with 1


def test_evaluation_takes_the_running_statistics(device):
    mean, variance = xp.asarray([1.0, 2.0]), xp.asarray([4.0, 0.0])
    layer = BatchNormalization(xp.ones(2), xp.zeros(2), 0.9, mean, variance)
    near(layer.forward(xp.asarray([[3.0, 2.001]]), False), [[2 / math.sqrt(4 + 1e-6), 0.001 / math.sqrt(1e-6)]])
    layer.forward(xp.asarray([[3.0, 2.0]]), True)
    near(layer.running_mean, [1.2, 2.0])
    near(mean, [1.0, 2.0])  # what was given stays as it was
    assert BatchNormalization(1, 0).running_mean is None


def test_one_sample_normalizes_to_beta(device):
    """As in the book's check of one image: x - μ is 0."""
    layer = BatchNormalization(xp.ones(3), xp.full(3, 0.5))
    near(layer.forward(normal((1, 3), "float64")), [[0.5, 0.5, 0.5]])
    near(layer.backward(xp.ones((1, 3))), [[0.0, 0.0, 0.0]])


# -- activations and dropout ----------------------------------------------------------------------------------------


def test_relu(device):
    """Its gradient at 0 is 0; the gradient that it is given stays as it was."""
    x, dout = xp.asarray([[-1.0, 0.0, 2.0]]), xp.asarray([[5.0, 6.0, 7.0]])
    layer = Relu()
    assert layer.mask is None
    with frozen(x, dout):
        assert_same(layer.forward(x), np.array([[0.0, 0.0, 2.0]]))
        assert_same(layer.backward(dout), np.array([[0.0, 0.0, 7.0]]))
    assert_same(layer.mask, np.array([[True, True, False]]))
    assert_same(layer.forward(xp.asarray([-3, 4])), np.array([0, 4]))
    assert_same(layer.backward(xp.asarray([1.5, 2.5])), np.array([0.0, 2.5]))


def test_sigmoid(device):
    x, dout = normal((2, 3), "float64"), normal((2, 3), "float64", 1)
    layer = Sigmoid()
    y = 1 / (1 + np.exp(-asnumpy(x)))
    with frozen(x, dout):
        near(layer.forward(x), y)
        near(layer.backward(dout), asnumpy(dout) * y * (1 - y))
    near(layer.out, y)
    near(layer.backward(2), 2 * y * (1 - y))


def test_dropout_draws_as_the_book(device):
    """The mask is rand(*shape) > ratio, of numpy.random."""
    x = xp.ones((3, 4), "float32")
    np.random.seed(7)
    kept = np.random.rand(3, 4) > 0.3
    np.random.seed(7)
    layer = Dropout(0.3)
    with frozen(x):
        assert_same(layer.forward(x), kept.astype("float32"))
        assert_same(layer.mask, kept)
        assert_same(layer.backward(x * 2), 2 * kept.astype("float32"))
        assert_same(layer.forward(x, False), np.full((3, 4), 0.7, "float32"))
    assert Dropout().dropout_ratio == 0.5


# -- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["indices", "column", "one-hot", "float one-hot", "uint8"])
def test_softmax_with_loss(device, form):
    """-Σ log(y[label] + 1e-7) / N and (y - t) / N, for every form of labels."""
    scores = normal((3, 4), "float64")
    labels = np.array([3, 0, 2])
    t = asarray(
        {
            "indices": labels,
            "column": labels.reshape(3, 1),
            "one-hot": np.eye(4, dtype=int)[labels],
            "float one-hot": np.eye(4)[labels],
            "uint8": labels.astype("uint8"),
        }[form]
    )
    y = np.exp(asnumpy(scores))
    y /= y.sum(axis=1, keepdims=True)
    layer = SoftmaxWithLoss()
    with frozen(scores, t):
        loss, dx = layer.forward(scores, t), layer.backward()
    assert abs(float(loss) + sum(math.log(y[i, k] + 1e-7) for i, k in enumerate(labels)) / 3) < 1e-14
    near(dx, (y - np.eye(4)[labels]) / 3)
    near(layer.backward(5), (y - np.eye(4)[labels]) / 3)  # the book leaves the argument aside
    near(layer.y, y)
    assert layer.t is t
    assert float(layer.loss) == float(loss)


def test_the_gradient_of_shares_is_the_difference(device):
    """Labels that are shares: the loss is of the largest, the gradient (y - t) / N, whatever t sums to."""
    layer, t = SoftmaxWithLoss(), xp.asarray([[0.2, 0.5], [3.0, 1.0]])
    loss = layer.forward(xp.zeros((2, 2)), t)
    assert abs(float(loss) + math.log(0.5 + 1e-7)) < 1e-14
    near(layer.backward(), (0.5 - asnumpy(t)) / 2)


def test_one_sample_is_a_batch_of_one(device):
    for t in ([0, 1, 0], 1, [1]):
        layer = SoftmaxWithLoss()
        loss = layer.forward(xp.zeros(3), xp.asarray(t))
        assert abs(float(loss) + math.log(1 / 3 + 1e-7)) < 1e-14
        near(layer.backward(), [1 / 3, -2 / 3, 1 / 3])


def test_one_score_is_refused():
    with pytest.raises(ValueError, match="one score per sample"):
        SoftmaxWithLoss().forward(np.zeros((3, 1)), np.zeros((3, 1), int))


# -- as layers of the library ---------------------------------------------------------------------------------------


def test_they_work_in_a_sequence_and_are_copied(device):
    """In the core's Sequential, by its mode; a copy has arrays of its own and nothing of a forward."""
    np.random.seed(0)
    sequence = layers.Sequential(
        Convolution(normal((2, 1, 3, 3)), xp.zeros(2, "float32"), pad=1),
        Relu(),
        Pooling(2, 2),
        Affine(normal((8, 3)), xp.zeros(3, "float32")),
        BatchNormalization(xp.ones(3, "float32"), xp.zeros(3, "float32")),
        Sigmoid(),
        Dropout(0.5),
    )
    x = normal((2, 1, 4, 4))
    assert sequence.output_shape((1, 4, 4)) == (3,)
    y = sequence.forward(x)
    assert sequence.backward(xp.ones_like(y)).shape == x.shape
    sequence.eval()
    assert_same(sequence.forward(x), copy.deepcopy(sequence).forward(x))
    assert copy.deepcopy(sequence)[0].x is None


@pytest.mark.gpu
def test_a_program_with_numpys_arrays_is_told_what_to_import():
    """Where there is a GPU the data lie on it; a program that keeps ``import numpy`` has its weights on the host."""
    with (
        use("cuda"),
        pytest.raises(TypeError, match=r"import np from training.compat.book in the program, or"),
    ):
        Affine(np.ones((2, 1)), np.zeros(1)).forward(xp.ones((1, 2)))
