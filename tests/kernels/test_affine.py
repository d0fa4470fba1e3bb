"""The bias and the ReLU of fully connected layers, and their gradients."""

import numpy as np
import pytest

import backend
from backend import asnumpy
from kernels import affine as module
from kernels.affine import add_bias, affine, bias_gradient
from kernels.gemm import matmul
from kernels.masking import masked
from kernels.sums import column_sums
from tests.support.checks import DTYPES, assert_close, assert_same, assert_separate, frozen, laid_out, normal

SHAPES = [(1, 1), (7, 3), (5, 32), (33, 70), (300, 50), (0, 4), (4, 0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_bias_and_relu_follow_the_product(device, dtype, shape):
    (rows, columns), inputs = shape, 6
    x, weight, bias = (
        normal((rows, inputs), dtype),
        normal((inputs, columns), dtype, 1),
        normal((2 * columns,), dtype, 2),
    )
    bias = bias[::2]
    if rows and columns > 1:
        bias[0], bias[1] = np.nan, -np.inf
    with frozen(x, weight, bias):
        y, positive = affine(x, weight, bias, relu=True)
        plain, nothing = affine(x, weight, bias)
    assert nothing is None
    # float16 is rounded once on the CPU, twice on a GPU
    expected = asnumpy(matmul(x, weight, bias=bias)) if device.kind == "cpu" else asnumpy(matmul(x, weight) + bias)
    assert_same(plain, expected)
    assert_same(y, np.where(expected <= 0, np.zeros((), dtype), expected))
    assert_same(positive, expected > 0, "bool")
    assert_separate((y, positive), [x, weight, bias])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "strided", "fortran"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_behind_the_relu(device, dtype, layout, shape):
    dy, out = normal(shape, dtype), backend.xp.empty(shape[1], dtype)
    if dy.size > 2:
        dy[0, 0] = np.nan  # is dropped
    positive = np.random.default_rng(1).random(shape) < 0.6
    if dy.size:
        positive[0, 0] = False
    dy, mask = laid_out(dy, layout), backend.asarray(positive)
    with frozen(dy, mask):
        dx = bias_gradient(dy, mask, out)
    expected = np.where(positive, asnumpy(dy), np.zeros((), dtype))
    assert_same(dx, expected)
    wide = np.float64(expected)
    assert_close(out, wide.sum(axis=0), dtype, terms=shape[0] + 1, magnitude=abs(wide).sum(axis=0))
    assert_separate((dx,), [dy, mask, out])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(0, 3), (1, 1), (3, 17), (5, 10), (100, 50), (300, 3), (257, 64), (600, 100), (3, 700)]
)
def test_the_layers_one_after_the_other_have_the_same_bits(device, dtype, shape):
    if device.kind != "cpu":
        pytest.skip("on a GPU the sums have another order")
    dy, mask = normal(shape, dtype), backend.asarray(np.random.default_rng(1).random(shape) < 0.6)
    out = backend.xp.empty(shape[1], dtype)
    dx = bias_gradient(dy, mask, out)
    assert_same(dx, masked(dy, mask))
    assert_same(out, column_sums(dx))


def test_many_rows_and_other_outputs_give_the_same(device, monkeypatch):
    dy, mask = normal((40, 9), "float32"), backend.asarray(np.arange(360).reshape(40, 9) % 3 > 0)
    plain, strided = backend.xp.empty(9, "float32"), backend.xp.empty((9, 2), "float32")
    dx = bias_gradient(dy, mask, plain)
    assert_same(bias_gradient(dy, mask, strided[:, 0]), asnumpy(dx))
    monkeypatch.setattr(module, "_MOST_ROWS", 39)
    tall = backend.xp.empty(9, "float32")
    assert_same(bias_gradient(dy, mask, tall), asnumpy(dx))
    for out in (strided[:, 0], tall):
        assert_close(out, np.float64(asnumpy(plain)), "float32", terms=41, magnitude=abs(asnumpy(dx)).sum(axis=0))


def test_another_shape_of_the_bias_is_refused(device):
    y = normal((4, 3), "float32")
    before = asnumpy(y).copy()
    for shape in ((1,), (4,), (3, 1)):
        bias = normal(shape, "float32")
        with pytest.raises(ValueError, match=r"bias must have shape \(3,\), got \("):
            add_bias(y, bias)
    assert_same(y, before)


def test_another_shape_is_refused(device):
    dy = normal((4, 3), "float32")
    with pytest.raises(ValueError, match=r"positive must have the shape of dy, \(4, 3\), got \(4,\)"):
        bias_gradient(dy, backend.asarray(np.ones(4, bool)), backend.xp.empty(3, "float32"))
