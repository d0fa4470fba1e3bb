"""Matrix products in C: tails of tiles, panels and runs, and an order of sums that is the same everywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import affine as affines
from kernels.affine import affine, bias_gradient
from kernels.core import native
from kernels.gemm import matmul
from tests.support.checks import DTYPES, assert_same, laid_out, normal, thread_limit, whole

pytestmark = pytest.mark.usefixtures("in_c")

SIZES = st.one_of(st.integers(0, 20), st.sampled_from([31, 33, 47, 63, 64, 65, 97, 129, 140]))
DEPTHS = st.one_of(st.integers(0, 20), st.sampled_from([255, 256, 257, 300, 511, 512, 513, 600, 1025]))
LAYOUTS = st.sampled_from(["contiguous", "strided", "reversed", "fortran"])
RUN = 256


def in_order(a, b):
    """Return a @ b in the order of gemm.c, each product added in float64 and rounded to float32: by an fma."""
    total, depth = np.zeros((len(a), b.shape[1]), "float32"), a.shape[1]
    runs = -(-depth // RUN)
    steps = -(-depth // (4 * runs)) * 4  # of a run: as equal as multiples of 4 can be
    for start in range(0, depth, steps):
        run = np.zeros(total.shape, "float32")
        for k in range(start, min(start + steps, depth)):
            run = (np.outer(np.float64(a[:, k]), b[k]) + run).astype("float32")  # one rounding, but for rare ties
        total = run if start == 0 else total + run
    return total


@settings(max_examples=150)
@given(SIZES, DEPTHS, SIZES, st.sampled_from(DTYPES), LAYOUTS, LAYOUTS, st.booleans())
def test_every_tail_is_exact_in_whole_numbers(m, k, n, dtype, of_a, of_b, with_bias):
    a, b = laid_out(whole((m, k), dtype, most=1), of_a), laid_out(whole((k, n), dtype, 1, most=1), of_b)
    bias = whole((n,), dtype, 2) if with_bias else None
    expected = np.float64(a) @ np.float64(b) + (0 if bias is None else np.float64(bias))
    assert_same(matmul(a, b, bias=bias), expected, dtype)
    if bias is not None:
        y, positive = affine(a, b, bias, relu=True)
        assert_same(y, np.maximum(expected, 0), dtype)
        assert_same(positive, expected > 0, "bool")


@pytest.mark.parametrize(("m", "k", "n"), [(7, 300, 5), (13, 600, 70), (100, 784, 10), (3, 1100, 66)])
@pytest.mark.parametrize(
    "layouts", [("contiguous", "contiguous"), ("fortran", "contiguous"), ("contiguous", "fortran")]
)
def test_the_order_of_sums_is_that_of_the_comment(m, k, n, layouts):
    a, b = laid_out(normal((m, k)), layouts[0]), laid_out(normal((k, n), seed=1), layouts[1])
    different = matmul(a, b) != in_order(a, b)
    assert np.count_nonzero(different) <= different.size // 100


@settings(max_examples=60)
@given(SIZES, DEPTHS, SIZES, st.sampled_from(DTYPES), LAYOUTS, LAYOUTS)
def test_layouts_and_parts_have_the_same_bits(m, k, n, dtype, of_a, of_b):
    """So orientation, tiles and panels do not matter: a row or a column alone gives the bits it has in the product."""
    a, b = normal((m, k), dtype), normal((k, n), dtype, 1)
    c = matmul(a, b)
    assert_same(matmul(laid_out(a, of_a), laid_out(b, of_b)), c)
    assert_same(matmul(b.T, a.T), c.T)
    for i in range(0, m, 5):
        assert_same(matmul(a[i : i + 1], b), c[i : i + 1])
    for j in range(0, n, 7):
        assert_same(matmul(a, b[:, j : j + 1]), c[:, j : j + 1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("m", "k", "n"), [(100, 784, 50), (784, 100, 50), (50, 100, 784), (1, 600, 300), (300, 600, 1)]
)
def test_threads_change_no_bit(monkeypatch, dtype, m, k, n):
    monkeypatch.setattr(native.tuning, "WORTH_CUTTING", 1)
    a, b, bias = normal((m, k), dtype), normal((k, n), dtype, 1), normal((n,), dtype, 2)
    results = []
    for count in (1, 2, 3, 5):
        with thread_limit(count):
            y, positive = affine(a, b, bias, relu=True)
            sums = np.empty(n, dtype)
            results.append((y, positive, matmul(a.T.copy().T, b), bias_gradient(y, positive, sums), sums))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_same(two, one)


def test_nan_and_infinity_stay_in_their_rows_and_columns():
    a, b = whole((9, 20), "float32"), whole((20, 21), "float32", 1)
    expected = np.float64(a) @ np.float64(b)
    a[2, 3], b[5, 7] = np.nan, np.inf
    expected[2] = np.nan
    expected[:, 7] = [np.nan if row == 2 or a[row, 5] == 0 else np.inf * a[row, 5] for row in range(9)]
    assert_same(matmul(a, b), expected, "float32")


def test_a_number_that_float16_rounds_to_zero_is_not_positive():
    x, weight, bias = np.full((1, 1), 1e-4, "float16"), np.full((1, 17), 1e-4, "float16"), np.zeros(17, "float16")
    y, positive = affine(x, weight, bias, relu=True)
    assert not y.any()
    assert not positive.any()


def test_what_c_has_not_got_is_computed_by_numpy():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12, dtype="float32").reshape(3, 4)
    assert_same(matmul(a, b), a @ b)
    assert_same(matmul(a.astype(">f8"), np.float64(b)), a @ b)
    assert_same(affine(a, b, b[0], relu=False)[0], a @ b + b[0])
    counts = np.arange(6).reshape(2, 3)
    assert_same(matmul(counts, counts.T), counts @ counts.T)


def test_shapes_that_do_not_fit_are_refused_before_anything_is_written():
    a, b, out = normal((3, 4)), normal((5, 2)), np.ones((3, 2), "float32")
    with pytest.raises(ValueError, match=r"needs \(M, K\) and \(K, N\), got \(3, 4\) and \(5, 2\)"):
        matmul(a, b, out=out)
    with pytest.raises(ValueError, match=r"out must have shape \(3, 2\), got \(2, 3\)"):
        matmul(a, b[:4], out=np.ones((2, 3), "float32"))
    with pytest.raises(ValueError, match=r"bias must have shape \(2,\), got \(3,\)"):
        matmul(a, b[:4], out=out, bias=np.ones(3, "float32"))
    with pytest.raises(ValueError, match=r"bias must have shape \(2,\), got \(1,\)"):
        affines.affine(a, b[:4], np.ones(1, "float32"), relu=True)
    assert (out == 1).all()
