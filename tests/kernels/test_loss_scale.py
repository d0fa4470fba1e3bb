"""The control of a loss scale: overflow found, scale moved, steps counted, on every device alike."""

import numpy as np
import pytest

from backend import asarray, asnumpy, xp
from kernels import loss_scale


def control(scale=4.0):
    return loss_scale.control(scale, xp)


def test_it_starts_ready(device):
    assert asnumpy(control()).tolist() == [4, 1, 0.25, 0, 0]
    assert control().dtype == "float32"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 4999, 9999])
def test_one_bad_number_is_found(device, dtype, bad, place):
    gradient, state = np.ones(10000, dtype), control()
    gradient[place] = bad
    before = gradient.copy()
    gradient = asarray(gradient)
    loss_scale.find_overflow(gradient, state)
    assert asnumpy(state)[loss_scale.FINITE] == 0
    np.testing.assert_array_equal(asnumpy(gradient), before)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_place_is_left_out(device, dtype):
    for size in (1, 2, 7, 33):
        for place in range(size):
            gradient, state = np.zeros(size, dtype), control()
            gradient[place] = np.inf
            loss_scale.find_overflow(asarray(gradient), state)
            assert asnumpy(state).tolist() == [4, 0, 0.25, 0, 0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_largest_and_smallest_numbers_are_finite(device, dtype):
    info, state = np.finfo(dtype), control()
    loss_scale.find_overflow(asarray(np.array([info.max, -info.max, info.tiny, 0.0, -0.0], dtype)), state)
    assert asnumpy(state)[loss_scale.FINITE] == 1


def test_strided_and_empty_gradients(device):
    state = control()
    gradient = np.ones((4, 6), "float16")
    gradient[:, 1] = np.inf
    loss_scale.find_overflow(asarray(gradient)[:, ::2], state)
    loss_scale.find_overflow(asarray(gradient)[:0], state)
    assert asnumpy(state)[loss_scale.FINITE] == 1
    loss_scale.find_overflow(asarray(gradient)[:, 1::2], state)
    assert asnumpy(state)[loss_scale.FINITE] == 0


def test_the_scale_follows_the_rule(device):
    """Against the rule in plain numbers, over a long random run."""
    state, interval, overflows = control(2.0**20), 3, np.random.default_rng(0).random(400) < 0.2
    scale, good, skipped = 2.0**20, 0, 0
    bad, fine = asarray(np.array([np.inf], "float16")), asarray(np.array([1], "float16"))
    seen = set()
    for overflow in overflows:
        loss_scale.find_overflow(bad if overflow else fine, state)
        loss_scale.adjust(state, interval)
        if overflow:
            scale, good, skipped = scale / 2, 0, skipped + 1
        else:
            good += 1
            if good == interval:
                scale, good = min(scale * 2, 2.0**24), 0
        assert asnumpy(state).tolist() == [scale, 1, 1 / scale, good, skipped]
        seen.add(scale)
    assert max(seen) == 2.0**24
    assert len(seen) > 3


def test_the_scale_has_a_lower_end(device):
    state, bad = control(), asarray(np.array([np.nan], "float16"))
    for _ in range(40):
        loss_scale.find_overflow(bad, state)
        loss_scale.adjust(state, 1)
    assert asnumpy(state).tolist() == [2.0**-24, 1, 2.0**24, 0, 40]


@pytest.mark.parametrize(("norm", "expected"), [(2.0, 0.25), (12.0, 0.25), (24.0, 0.125), (0.0, 0.25)])
def test_a_norm_beyond_the_limit_shrinks_the_multiplier(device, norm, expected):
    """Of gradients with a scale of 4 in them, and a limit of 3 without it."""
    state = control()
    loss_scale.limit_norm(asarray(np.array(norm)), 3.0, state)
    assert asnumpy(state)[loss_scale.MULTIPLIER] == expected


@pytest.mark.gpu
def test_host_and_device_are_not_mixed():
    import backend

    with backend.use("cuda"), pytest.raises(TypeError, match="host and device arrays are mixed"):
        loss_scale.find_overflow(np.ones(3), control())
