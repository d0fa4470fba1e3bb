"""Dropout masks: the random words they are made of, and how many they keep."""

import math

import numpy as np
import pytest
from checks import assert_channels_last, assert_same

import backend
from backend import asnumpy, random
from kernels.dropout import dropout_mask


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


def test_the_threshold_is_exact(device, monkeypatch):
    words = np.array([0, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    monkeypatch.setattr(random, "bits", lambda count: backend.asarray(words[:count]))
    assert asnumpy(dropout_mask((4,), 0.5)).tolist() == [False, False, True, True]
    assert asnumpy(dropout_mask((4,), 0.0)).all()


def test_masks_follow_one_another(device):
    random.seed(1)
    first, second = asnumpy(dropout_mask((64,), 0.5)).copy(), asnumpy(dropout_mask((64,), 0.5)).copy()
    assert (first != second).any()
    random.seed(1)
    assert_same(dropout_mask((64,), 0.5), first)


@pytest.mark.gpu
def test_host_and_device_drop_the_same():
    masks = []
    for name in ("cpu", "cuda"):
        with backend.use(name):
            random.seed(3)
            masks.append(asnumpy(dropout_mask((2, 3, 5, 7), 0.4)))
    assert_same(masks[1], masks[0])
