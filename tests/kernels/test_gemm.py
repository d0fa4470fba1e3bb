"""Matrix products: exact in whole numbers, within a sum's rounding otherwise."""

import numpy as np
import pytest
import threadpoolctl
from hypothesis import strategies as st

import backend
from backend import asnumpy
from kernels.core import native
from kernels.core.dtypes import acc_dtype
from kernels.gemm import add_rows, matmul
from kernels.sums import column_sums
from tests.support.checks import (
    DTYPES,
    assert_close,
    assert_same,
    assert_separate,
    for_all,
    frozen,
    laid_out,
    normal,
    thread_limit,
    variants,
    whole,
)

LAYOUTS = st.sampled_from(["contiguous", "strided", "reversed", "fortran"])
SIZES = (st.integers(0, 7), st.integers(0, 9), st.integers(0, 6))


def product(a, b):
    """Row times column, one by one."""
    result = np.zeros((a.shape[0], b.shape[1]))
    for i, k, j in np.ndindex(a.shape[0], a.shape[1], b.shape[1]):
        result[i, j] += float(a[i, k]) * float(b[k, j])
    return result


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_accumulator(dtype, expected):
    assert acc_dtype(dtype) == np.dtype(expected)
    assert acc_dtype(np.dtype(dtype)) == np.dtype(expected)


def test_matmul_is_exact_in_whole_numbers(device):
    @for_all(device, *SIZES, st.sampled_from(DTYPES), LAYOUTS, LAYOUTS)
    def check(m, k, n, dtype, of_a, of_b):
        a, b = laid_out(whole((m, k), dtype), of_a), laid_out(whole((k, n), dtype, 1), of_b)
        with frozen(a, b):
            c = matmul(a, b)
        assert_same(c, product(asnumpy(a), asnumpy(b)), dtype)
        assert_separate(c, [a, b])


def test_matmul_rounds_as_a_sum(device):
    @for_all(device, *SIZES, st.sampled_from(DTYPES))
    def check(m, k, n, dtype):
        a, b = normal((m, k), dtype), normal((k, n), dtype, 1)
        host_a, host_b = asnumpy(a), asnumpy(b)
        sizes = product(abs(host_a), abs(host_b))
        assert_close(matmul(a, b), product(host_a, host_b), dtype, terms=k, magnitude=sizes, roundings=1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_into_an_array(device, dtype):
    a, b = whole((4, 5), dtype), whole((5, 3), dtype, 1)
    expected = product(asnumpy(a), asnumpy(b))
    for _, out in variants(normal((4, 3), dtype)):
        assert matmul(a, b, out=out) is out
        assert_same(out, expected, dtype)
    framed = normal((4, 5), dtype, 2)
    edge = asnumpy(framed[:, [0, 4]]).copy()
    matmul(a, b, out=framed[:, 1:4])  # a group's columns of an output
    assert_same(framed[:, 1:4], expected, dtype)
    assert_same(framed[:, [0, 4]], edge)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("into", [False, True])
def test_matmul_adds_a_bias_to_every_row(device, dtype, into):
    a, b, bias = whole((4, 5), dtype), whole((5, 3), dtype, 1), whole((3,), dtype, 2)
    out = normal((4, 3), dtype) if into else None
    with frozen(a, b, bias):
        c = matmul(a, b, out=out, bias=bias)
    assert c is out or not into
    assert_same(c, product(asnumpy(a), asnumpy(b)) + asnumpy(bias), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("worth", [1 << 19, 1 << 40])
@pytest.mark.parametrize(
    ("m", "k", "n"), [(700, 90, 50), (50, 90, 700), (144, 784, 33), (1, 5000, 70), (70, 5000, 1), (33, 4000, 144)]
)
def test_the_threads_change_no_bit(device, monkeypatch, dtype, worth, m, k, n):
    """Ours and those of BLAS alike, cut or not; and cutting changes nothing in whole numbers."""
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", worth)
    a, b = normal((k, m), dtype).T, normal((k, n), dtype, 1)
    results = []
    for ours, of_blas in ((1, 1), (1, 2), (2, 1), (3, 2), (5, 1)):
        with thread_limit(ours), threadpoolctl.threadpool_limits(of_blas, user_api="blas"):
            results.append((matmul(a, b), column_sums(a)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_same(two, one)
    a, b = whole((m, k), dtype, most=1), whole((k, n), dtype, 1, most=1)
    expected = asnumpy(a).astype(np.float64) @ asnumpy(b).astype(np.float64)
    for _, out in variants(normal((m, n), dtype)):
        assert_same(matmul(a, b, out=out), expected, dtype)


@pytest.mark.parametrize(("m", "k", "n"), [(60, 70, 80), (300, 300, 1200)])
def test_blas_has_one_thread_in_every_product(monkeypatch, m, k, n):
    seen, original = [], np.matmul

    def watch(*args, **options):
        seen.append({pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"})
        return original(*args, **options)

    monkeypatch.setattr(np, "matmul", watch)
    two = threadpoolctl.threadpool_limits(2, user_api="blas")
    with backend.use("cpu"), native.enabled(False), thread_limit(2), two:
        matmul(normal((m, k)), normal((k, n)))
    assert seen
    assert all(counts == {1} for counts in seen)


def test_float16_is_multiplied_in_float32(device):
    a = backend.asarray(np.array([[2048, 1, 1]], "float16"))
    b = backend.asarray(np.ones((3, 1), "float16"))
    assert asnumpy(matmul(a, b)).item() == 2050
    a = backend.asarray(np.array([[300, 300]], "float16"))
    b = backend.asarray(np.array([[300], [-300]], "float16"))
    assert asnumpy(matmul(a, b)).item() == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stack", [(), (36,)])
def test_rows_are_added_to_a_total(device, dtype, stack):
    a, b, total = whole((*stack, 40, 3), dtype), whole((*stack, 40, 5), dtype, 1), whole((*stack, 3, 5), dtype, 2)
    wide = [asnumpy(array).astype("float64") for array in (a, b, total)]
    with frozen(a, b):
        for _ in range(2):
            add_rows(a, b, total)
    assert_same(total, wide[2] + 2 * wide[0].swapaxes(-2, -1) @ wide[1], dtype)


@pytest.mark.gpu
def test_rows_of_float16_are_added_in_float32():
    with backend.use("cuda"):
        a, b, total = whole((40, 3), "float16"), whole((40, 5), "float16", 1), whole((3, 5), "float32", 2)
        total += 60000
        expected = asnumpy(total) + asnumpy(a).astype("float64").T @ asnumpy(b).astype("float64")
        add_rows(a, b, total)
        assert_same(total, expected, "float32")


@pytest.mark.gpu
def test_host_and_device_arrays_do_not_mix():
    with backend.use("cuda"):
        a = whole((3, 3))
        with pytest.raises(TypeError, match=r"numpy.*cupy"):
            matmul(a, asnumpy(a))
