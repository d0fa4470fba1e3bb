"""Products of tall, wide and stacked matrices, and of parts: exact in whole numbers."""

import numpy as np
import pytest

import backend
from backend import asnumpy
from kernels.gemm import add_rows, matmul, matmul_part
from tests.support.checks import assert_same, frozen, laid_out, normal, whole

SHAPES = [  # M, K, N
    (1, 5, 3),
    (257, 9, 16),
    (512, 61, 40),
    (513, 61, 40),
    (1800, 25, 30),
    (300, 100, 50),
    (16, 36, 1800),  # wide
    (500, 144, 64),
    (300, 70, 130),
    (300, 600, 128),
    (300, 0, 4),
    (300, 4, 0),
    (0, 4, 3),
]
LAYOUTS = ["contiguous", "strided", "reversed", "fortran"]


def exact(a, b):
    """In float64 NumPy's product of whole numbers this small is exact in any order."""
    return np.asarray(asnumpy(a), "float64") @ np.asarray(asnumpy(b), "float64")


def added(a, b):
    """Return aᵀ @ b, added to zeros."""
    total = backend.xp.zeros((*a.shape[:-2], a.shape[-1], b.shape[-1]), a.dtype)
    add_rows(a, b, total)
    return total


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_products_are_exact(device, m, k, n, layout):
    a, b = laid_out(whole((m, k), "float32"), layout), laid_out(whole((k, n), "float32", 1), layout)
    with frozen(a, b):
        for multiply in (matmul, matmul_part):
            assert_same(multiply(a, b), exact(a, b), "float32")
            out = laid_out(normal((m, n), "float32", 2), layout)
            assert multiply(a, b, out=out) is out
            assert_same(out, exact(a, b), "float32")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("m", "k", "n"), [*SHAPES, (700, 72, 64), (500, 144, 100), (1000, 7, 2000)])
def test_rows_are_added_up(device, m, k, n, layout):
    a, b = laid_out(whole((m, k), "float32"), layout), laid_out(whole((m, n), "float32", 1), layout)
    with frozen(a, b):
        assert_same(added(a, b), exact(a.T, b), "float32")


def test_stacks(device):
    a, b = whole((3, 300, 10), "float32"), whole((3, 10, 20), "float32", 1)
    c = whole((3, 300, 20), "float32", 2)
    assert_same(matmul_part(a, b), exact(a, b), "float32")
    turned = backend.xp.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2)
    for out in (normal((3, 300, 20), "float32"), normal((3, 300, 40), "float32")[:, :, ::2]):
        assert matmul_part(turned, b, out=out) is out
        assert_same(out, exact(a, b), "float32")
    assert matmul_part(a[:0], b[:0]).shape == (0, 300, 20)
    assert_same(added(a, c), exact(a.swapaxes(1, 2), c), "float32")


def test_parts_of_float16_are_refused_on_the_cpu():
    with backend.use("cpu"):
        a, b = whole((4, 3), "float16"), whole((3, 4), "float16")
        for multiply, left in ((matmul_part, a), (added, b)):
            with pytest.raises(TypeError, match="their accumulator's dtype"):
                multiply(left, b)
