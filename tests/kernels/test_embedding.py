"""Rows by their indices, and sums by row, against a plain loop; tests/layers/test_embedding.py tests the layer."""

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import asarray, asnumpy
from kernels.core import native
from kernels.embedding import embedding, embedding_backward
from tests.support.checks import (
    DTYPES,
    assert_same,
    assert_separate,
    for_all,
    frozen,
    laid_out,
    normal,
    thread_limit,
    watched_shares,
)

LAYOUTS = st.sampled_from(["contiguous", "strided", "reversed", "fortran"])
WIDE = {"float16": "float32", "float32": "float32", "float64": "float64"}


def by_hand(gradients, indices, count):
    """Return the sums in the dtype of sums, one number after the other, rounded once."""
    gradients = asnumpy(gradients)
    sums = np.zeros((count, gradients.shape[-1]), WIDE[gradients.dtype.name])
    for place in np.ndindex(indices.shape):
        sums[indices[place]] += gradients[place]
    return sums.astype(gradients.dtype)


def test_every_shape(device):
    sizes = st.integers(1, 40), st.integers(0, 40), st.lists(st.integers(0, 7), min_size=0, max_size=3)

    @for_all(device, *sizes, st.sampled_from(DTYPES), LAYOUTS, LAYOUTS, st.integers(0, 99))
    def check(count, size, shape, dtype, of_weight, of_dout, seed):
        indices = np.random.default_rng(seed).integers(0, count, shape)
        weight, x = laid_out(normal((count, size), dtype, seed), of_weight), asarray(indices)
        dout = normal((*indices.shape, size), dtype, seed + 1)
        dout = laid_out(dout, of_dout) if dout.ndim > 1 else dout
        out = backend.xp.full((count, size), 3, dtype)
        with frozen(weight, x, dout):
            rows = embedding(weight, x)
            assert embedding_backward(dout, x, out) is out
        assert_same(rows, asnumpy(weight)[indices])
        assert_separate(rows, [weight])
        assert_same(out, by_hand(dout, indices, count))


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(device, dtype):
    indices = np.random.default_rng(0).integers(0, 37, 2000)
    x, dout = asarray(indices), normal((2000, 33), dtype)
    expected = by_hand(dout, indices, 37)
    for count in (1, 2, 3, 5):
        with thread_limit(count), watched_shares() as shares:
            assert_same(embedding_backward(dout, x, backend.xp.empty((37, 33), dtype)), expected)
        assert count == 1 or shares or not native.available() or device.kind == "cuda"


def test_numpy_gives_the_bits_of_the_c_kernel():
    if not native.available():
        pytest.skip(native.refusal())
    with backend.use("cpu"):
        for dtype in DTYPES:
            indices, dout = np.arange(300).reshape(20, 15) * 7 % 11, normal((20, 15, 19), dtype)
            results = []
            for on in (True, False):
                with native.enabled(on):
                    results.append(embedding_backward(dout, indices, np.empty((11, 19), dtype)))
            assert_same(*results)


def test_a_strided_gradient_is_filled(device):
    """Also one that no kernel can write to."""
    out = backend.xp.full((5, 6), 3, "float32")[:, ::2]
    indices, dout = np.array([4, 4, 1]), normal((3, 3))
    embedding_backward(dout, asarray(indices), out)
    assert_same(out, by_hand(dout, indices, 5))


def test_infinities_and_nan_stay_in_their_row(device):
    dout = np.float32([[np.inf, 1], [np.nan, 2], [-0.0, -0.0], [1, 3]])
    out = embedding_backward(asarray(dout), asarray(np.array([0, 1, 2, 3])), backend.xp.empty((5, 2), "float32"))
    assert_same(out, np.float32([[np.inf, 1], [np.nan, 2], [0, 0], [1, 3], [0, 0]]))
    assert not np.signbit(asnumpy(out)[2]).any()


@pytest.mark.parametrize(("weight", "indices", "error", "words"), [
    ((3,), [0], ValueError, r"weight must be a matrix \(count, size\), got shape \(3,\)"),
    ((3, 2), [0.0], TypeError, "indices must be of an integer dtype, got float64"),
    ((3, 2), [3], ValueError, "index 3 at 0 is out of range: expected 0 to 2"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(weight, indices, error, words):
    with backend.use("cpu"), pytest.raises(error, match=words):
        embedding(normal(weight), np.array(indices))


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
def test_rows_that_are_not_floating_are_refused(dtype):
    with backend.use("cpu"):
        weight, out = np.ones((3, 2), dtype), np.zeros((3, 2), dtype)
        for compute in (
            lambda: embedding(weight, np.array([0])),
            lambda: embedding_backward(weight, np.arange(3), out),
        ):
            with pytest.raises(TypeError, match=f"embedding needs float16, float32 or float64, got {dtype}"):
                compute()
        assert not out.any()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_gradients_of_another_dtype_are_refused(dtype):
    with backend.use("cpu"):
        out = np.full((3, 2), 7, dtype)
        with pytest.raises(TypeError, match=f"embedding needs one dtype, got dout float64 and out {dtype}"):
            embedding_backward(normal((2, 2), "float64"), np.array([0, 1]), out)
        assert (out == 7).all()


@pytest.mark.parametrize(("dout", "out", "words"), [
    ((2, 4), (3, 5), r"dout must be of \(2, 5\), got \(2, 4\)"),
    ((2, 4), (4,), r"out must be a matrix \(count, size\), got shape \(4,\)"),
])  # fmt: skip
def test_gradients_that_do_not_fit_are_refused(dout, out, words):
    with backend.use("cpu"), pytest.raises(ValueError, match=words):
        embedding_backward(normal(dout), np.array([0, 1]), normal(out))
