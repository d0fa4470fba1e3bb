"""Keeping and dropping numbers: exact to the bit, whatever the numbers are."""

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import asnumpy
from kernels.core import native
from kernels.masking import masked
from tests.support.checks import (
    DTYPES,
    assert_channels_last,
    assert_same,
    assert_separate,
    for_all,
    frozen,
    laid_out,
    normal,
    thread_limit,
    watched_shares,
)

LAYOUTS = st.sampled_from(["contiguous", "strided", "reversed", "fortran", "channels_last"])


def numbers(shape, dtype, seed=0):
    """Normal numbers with NaN, infinities, zeros of both signs and a subnormal among them."""
    values = asnumpy(normal(shape, dtype, seed)).copy()
    rng = np.random.default_rng(seed)
    for special in (np.nan, np.inf, -np.inf, 0.0, -0.0, np.finfo(dtype).smallest_subnormal):
        values[rng.random(shape) < 0.1] = special
    return backend.asarray(values)


def mask_of(shape, seed=0):
    return backend.asarray(np.random.default_rng(seed + 1).random(shape) < 0.6)


def assert_same_bits(actual, expected):
    assert_same(actual, expected)
    np.testing.assert_array_equal(np.signbit(asnumpy(actual)), np.signbit(expected))


def chosen(values, mask):
    values = asnumpy(values)
    expected = np.zeros(values.shape, values.dtype)
    for index in np.ndindex(values.shape):
        if mask[index]:
            expected[index] = values[index]
    return expected


def test_masked_keeps_or_drops_every_number(device):
    @for_all(device, st.lists(st.integers(0, 5), max_size=5), st.sampled_from(DTYPES), LAYOUTS, LAYOUTS)
    def check(shape, dtype, of_values, of_mask):
        shape = tuple(shape)
        if shape == ():
            shape = (1,)
        values, mask = laid_out(numbers(shape, dtype), of_values), laid_out(mask_of(shape), of_mask)
        with frozen(values, mask):
            result = masked(values, mask)
        assert_same_bits(result, chosen(values, asnumpy(mask)))
        assert_separate(result, [values, mask])
        if len(shape) == 4:
            assert_channels_last(result)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_nothing(device, dtype):
    values, mask = numbers((1003,), dtype), mask_of((1003,))
    for count in (1, 2, 3, 5):
        with thread_limit(count), watched_shares() as shares:
            assert_same_bits(masked(values, mask), chosen(values, asnumpy(mask)))
        assert count == 1 or shares or not native.available() or device.kind == "cuda"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_nan_are_kept(device, dtype):
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    nans = np.array([np.nan], dtype).view(bits) ^ np.arange(1, 40, dtype=bits)  # signalling ones, with a payload
    nans[::2] ^= np.array([-0.0], dtype).view(bits)
    kept = masked(backend.asarray(nans.view(dtype)), backend.asarray(np.arange(39) % 3 > 0))
    assert_same(backend.asarray(asnumpy(kept).view(bits)), np.where(np.arange(39) % 3 > 0, nans, 0), bits)


def test_two_shapes_are_refused(device):
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        masked(normal((2, 3)), mask_of((3, 2)))
