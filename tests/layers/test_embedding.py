"""The embedding of indices."""

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy, random
from layers import Embedding
from tests.support.checks import assert_same, normal
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle


def forward(p, x):
    return Expected(np.array([p["W"][row] for row in x.reshape(-1)]).reshape(*x.shape, p["W"].shape[1]))


def backward(p, dout, x):
    sums = np.zeros((2, *p["W"].shape))
    for row, gradient in zip(x.reshape(-1), dout.reshape(x.size, -1), strict=True):
        sums[:, row] += gradient, abs(gradient)
    return {"W": Expected(*sums, x.size, 1)}


def case(name, shape, rows, size, dtype="int64"):
    return LayerCase(
        f"Embedding {name}",
        lambda draw: Embedding(draw(rows, size)),
        shape,
        Oracle(forward, backward),
        inputs=0,
        args=lambda: (asarray(np.random.default_rng(5).integers(0, rows, shape).astype(dtype)),),
    )


CASES = [
    case("of sequences", (3, 5), 7, 4),
    case("of one index", (4,), 3, 5, "uint8"),
    case("of one row", (3, 2), 1, 3, "int32"),
    case("of rows most of which do not occur", (2, 3), 40, 17, "int16"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_any_integer_dtype(device, dtype):
    layer, x = Embedding(normal((5, 3))), np.array([[4, 0, 4], [1, 2, 4]], dtype)
    assert_same(layer.forward(asarray(x)), asnumpy(layer.W)[x])
    assert layer.backward(asarray(np.ones((2, 3, 3), "float32"))) is None
    assert_same(layer.dW, np.float32([[1], [1], [1], [0], [3]]) * np.ones(3, "float32"))


def test_indices_of_any_shape(device):
    layer, x = Embedding(normal((5, 3))), np.arange(24).reshape(2, 3, 2, 2) % 5
    assert_same(layer.forward(asarray(x)), asnumpy(layer.W)[x])
    assert layer.output_shape((3, 2, 2)) == (3, 2, 2, 3)


def test_gradients_of_a_row_are_added_in_the_order_of_their_places(device):
    """Another order would round to another number."""
    layer = Embedding(normal((2, 1)))
    layer.forward(asarray(np.array([[1, 0, 1], [1, 1, 0]])))
    layer.backward(asarray(np.float32([[[1], [5], [2**24]], [[1], [-(2**24)], [7]]])))
    assert_same(layer.dW, np.float32([[12], [0]]))


def test_a_frozen_layer_leaves_the_gradient_out(device):
    layer = Embedding(normal((5, 3)))
    layer.frozen = True
    y = layer.forward(asarray(np.array([[1, 2]])))
    assert layer.backward(y) is None
    assert layer.grads == {}


@pytest.mark.parametrize(("given", "words"), [
    ([[0, 1], [5, 9]], r"index 5 at \(1, 0\) is out of range: expected 0 to 4"),
    ([0, -1], r"index -1 at 1 is out of range: expected 0 to 4"),
])  # fmt: skip
def test_an_index_out_of_range_is_named_on_the_cpu(given, words):
    with backend.use("cpu"), pytest.raises(ValueError, match=words):
        Embedding(normal((5, 3))).forward(np.array(given))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
def test_an_index_out_of_range_is_nan_on_a_gpu(dtype):
    with backend.use("cuda"):
        layer = Embedding(normal((5, 3)))
        large = 5 + (1 << 32 if dtype == "int64" else 0)
        y = asnumpy(layer.forward(asarray(np.array([2, -1, large, 4]).astype(dtype))))
        assert np.isnan(y[1:3]).all()
        assert_same(y[[0, 3]], asnumpy(layer.W)[[2, 4]])
        layer.backward(asarray(np.ones((4, 3), "float32")))
        assert_same(layer.dW, np.float32([[0], [0], [1], [0], [1]]) * np.ones(3, "float32"))


def test_the_same_seed_gives_the_same_vectors(device):
    random.seed(3)
    one = Embedding.of(20, 6)
    random.seed(3)
    assert_same(Embedding.of(20, 6).W, one.W)
    assert abs(float(asnumpy(one.W).std()) - 1) < 0.3
    assert Embedding.of(2, 3, dtype="float64").W.dtype == "float64"


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: Embedding(np.ones((2, 3), "int64")), TypeError, "W as a floating-point array, got int64"),
    (lambda: Embedding(np.ones(3)), ValueError, r"W \(count, size\), got \(3,\)"),
    (lambda: Embedding(np.ones((2, 3))).forward(np.ones((2, 2))), TypeError, "integer dtype, got float64"),
    (lambda: Embedding(np.ones((2, 3))).forward(np.ones((2, 2), bool)), TypeError, "integer dtype, got bool"),
    (lambda: Embedding(np.ones((2, 3))).forward([0, 1]), TypeError, "x must be an array"),
    (lambda: Embedding(np.ones((2, 3))).forward(np.array(1)), ValueError, "no dimensions"),
    (lambda: Embedding.of(0, 3), ValueError, "count must be a whole number"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, words):
    with backend.use("cpu"), pytest.raises(error, match=words):
        make()


def test_repr():
    with backend.use("cpu"):
        assert repr(Embedding.of(65, 16)) == "Embedding(65 → 16)"
