"""Dropout masks: the random words they are made of, and how many they keep."""

import math

import numpy as np
import pytest

import backend
from backend import asnumpy, random
from kernels.core import launch
from kernels.dropout import dropout, dropout_mask
from tests.support.checks import (
    DTYPES,
    assert_channels_last,
    assert_same,
    assert_separate,
    frozen,
    laid_out,
    normal,
    thread_limit,
)


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (0, 3)])
def test_a_mask_is_words_against_a_threshold_in_memory_order(device, shape):
    random.seed(5)
    words = asnumpy(random.bits(math.prod(shape)))
    random.seed(5)
    mask = dropout_mask(shape, 0.3)
    kept = words.astype(np.float64) / 2**32 >= 0.3
    if len(shape) == 4:
        n, c, h, w = shape
        kept = kept.reshape(n, h, w, c).transpose(0, 3, 1, 2)
        assert_channels_last(mask)
    assert_same(mask, kept.reshape(shape), "bool")


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_ratio_is_the_share_that_is_dropped(device, ratio):
    dropped = 1 - asnumpy(dropout_mask((20000,), ratio)).mean()
    assert abs(dropped - ratio) <= 4 * math.sqrt(ratio * (1 - ratio) / 20000)


def test_the_threshold_is_exact(device):
    """A word is kept by the ratio that it is itself of 2³², and dropped by the next."""
    random.seed(5)
    for index, word in enumerate(asnumpy(random.bits(6)).tolist()):
        for ahead, kept in ((0, True), (1, False)):
            random.seed(5)
            assert bool(dropout_mask((6,), (word + ahead) / 2**32)[index]) is kept
    assert asnumpy(dropout_mask((6,), 0.0)).all()


def test_masks_follow_one_another(device):
    random.seed(1)
    first, second = asnumpy(dropout_mask((64,), 0.5)).copy(), asnumpy(dropout_mask((64,), 0.5)).copy()
    assert (first != second).any()
    random.seed(1)
    assert_same(dropout_mask((64,), 0.5), first)


@pytest.mark.gpu
@pytest.mark.parametrize("position", [0, 2**32 - 3, 2**63 - 3])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (9,), (0, 3)])
def test_host_and_device_drop_the_same(position, shape):
    """Words of a wide seed and stream, where the position passes from one word into two."""
    masks, states = [], []
    for name in ("cpu", "cuda"):
        with backend.use(name):
            random.default.state = {"seed": 2**63 + 5, "stream": 2**40 + 3, "position": position}
            masks.append(asnumpy(dropout_mask(shape, 0.4)))
            states.append(random.default.state)
    assert_same(masks[1], masks[0])
    assert states[1] == states[0]


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "value"), [("_NARROW", 0), ("_MOST_BLOCKS", 2)])
def test_wide_indices_and_a_small_grid_change_no_bit(monkeypatch, name, value):
    def results():
        random.seed(9)
        return [dropout_mask((5001,), 0.5)]

    with backend.use("cuda"):
        expected = results()
        monkeypatch.setattr(launch, name, value)
        for one, two in zip(expected, results(), strict=True):
            assert_same(two, one)


def test_a_generator_of_ones_own(device):
    """It is drawn from in place of the process's, which stays where it is."""
    random.seed(5)
    expected = asnumpy(dropout_mask((3, 4), 0.3))
    state, own = random.default.state, random.Generator(5)
    assert_same(dropout_mask((3, 4), 0.3, own), expected, "bool")
    assert random.default.state == state
    assert own.state["position"] == 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "strided", "reversed"])
@pytest.mark.parametrize("shape", [(1,), (4,), (37,), (3, 5), (2, 3, 5, 7), (0, 3), (2, 0, 1, 1), ()])
def test_numbers_are_dropped_where_the_mask_says(device, dtype, layout, shape):
    x = normal(shape, dtype)
    if x.size > 3:
        x.reshape(-1)[:3] = backend.asarray(np.array([np.nan, np.inf, -0.0], dtype))
    x = laid_out(x, layout) if x.ndim else x
    random.seed(7)
    mask = dropout_mask(shape, 0.4)
    random.seed(7)
    with frozen(x):
        y, kept = dropout(x, 0.4)
    assert_same(kept, asnumpy(mask), "bool")
    right = np.where(asnumpy(mask), asnumpy(x), np.zeros((), dtype))
    assert_same(y, right)
    assert not np.signbit(asnumpy(y)[~asnumpy(mask)]).any()
    if x.ndim:
        assert_separate((y, kept), [x])
    if len(shape) == 4:
        assert_channels_last(y, kept)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_begin_anywhere_are_dropped(device, dtype):
    """Four are read at once where they begin at a multiple of 16 bytes."""
    whole = normal((23,), dtype)
    for start in range(5):
        random.seed(start)
        mask = dropout_mask((23 - start,), 0.5)
        random.seed(start)
        y, _ = dropout(whole[start:], 0.5)
        assert_same(y, np.where(asnumpy(mask), asnumpy(whole)[start:], np.zeros((), dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("position", [0, 2**32 - 3, 2**63 - 3])
def test_threads_a_wide_place_and_every_size_change_no_bit(device, dtype, position, monkeypatch):
    """C kernels make many words at once; threads begin at any block. Numbers that stay keep even a NaN's payload."""
    state = {"seed": 2**63 + 5, "stream": 2**40 + 3, "position": position}
    unsigned = f"u{np.dtype(dtype).itemsize}"
    numbers = np.random.default_rng(0).integers(0, np.iinfo(unsigned).max, 300, unsigned)
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 64)
    for size in (*range(1, 20), 31, 63, 64, 65, 127, 129, 300):
        random.default.state = state
        kept = asnumpy(random.bits(size)) >= 0.4 * 2**32
        after = random.default.state
        for count in (1, 2, 3, 5):
            random.default.state = state
            with thread_limit(count):
                y, keep = dropout(backend.asarray(numbers[:size].view(dtype)), 0.4)
            assert random.default.state == after
            assert_same(keep, kept, "bool")
            assert_same(asnumpy(y).view(unsigned), np.where(kept, numbers[:size], 0))
