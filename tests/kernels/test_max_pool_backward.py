"""The gradient of max pooling to the bit: gathered where windows overlap, scattered where they do not."""

import numpy as np
import pytest

import backend
from backend import asnumpy, workspace
from kernels import max_pooling as module
from kernels.core.window import Window
from kernels.max_pooling import max_pool, max_pool_backward, pool, pool_backward
from tests.support.checks import DTYPES, assert_channels_last, check_gradient, normal, whole


def test_overlapping_windows_add_up_in_the_shared_winner(device):
    x = whole((1, 1, 3, 3), most=0)
    x[0, 0, 1, 1] = 1
    window = Window(2)
    dy = backend.asarray(np.array([1, 10, 100, 1000], "float32").reshape(1, 1, 2, 2))
    dx = max_pool_backward(dy, max_pool(x, window)[1], x.shape, window)
    np.testing.assert_array_equal(asnumpy(dx)[0, 0], [[0, 0, 0], [0, 1111, 0], [0, 0, 0]])


def test_a_gradient_that_overflowed_reaches_its_winner_alone(device):
    x = backend.asarray(np.array([[[[1, 2, 3, 4]]]], "float16"))
    window = Window((1, 2), (1, 2))
    dy = backend.asarray(np.array([[[[np.inf, 1]]]], "float16"))
    dx = max_pool_backward(dy, max_pool(x, window)[1], x.shape, window)
    np.testing.assert_array_equal(asnumpy(dx).ravel(), [0, np.inf, 0, 1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "window",
    [Window(2, 2), Window(1), Window(2, 3, 1), Window((2, 3), (4, 3), (1, 0, 2, 1)), Window(2, 3, 0, 2),
     Window(2, 4, "same", 3), Window(2, 2, rounding="ceil"), Window(9, 9, 4)],
    ids=str,
)  # fmt: skip
def test_windows_that_do_not_overlap_pass_the_gradients_bits_on(device, window, dtype, monkeypatch):
    """Of negative zeros, subnormals and NaNs too; +0 to all others, in memory that was not zero before."""
    assert not window.overlaps
    shape = (2, 3, 8, 9)
    special = np.array([-0.0, 0.0, np.inf, -1.5, np.finfo(dtype).smallest_subnormal, np.nan, np.nan], dtype)
    special.view(f"u{special.itemsize}")[-1] += 5  # another NaN
    y, argmax = max_pool(whole(shape, dtype), window)
    dy = np.random.default_rng(0).choice(special, y.shape)
    expected = np.zeros((*shape[:2], shape[2] * shape[3]), dtype)
    np.put_along_axis(expected, asnumpy(argmax).reshape(2, 3, -1), dy.reshape(2, 3, -1), 2)
    empty = workspace.empty
    monkeypatch.setattr(workspace, "empty", lambda *given: full_of_ones(empty(*given)))
    dx = max_pool_backward(backend.asarray(dy), argmax, shape, window)
    assert asnumpy(dx).tobytes() == expected.tobytes()
    assert_channels_last(dx)


def full_of_ones(array):
    array.fill(1)
    return array


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_of_negative_zeros_is_zero(device, dtype):
    """Where windows overlap, a pixel's sum starts at +0, on every device."""
    window, shape = Window(2), (1, 1, 3, 3)
    dy, argmax = backend.asarray(np.full((1, 1, 2, 2), -0.0, dtype)), whole((1, 1, 2, 2), "int32", most=0) + 4
    dx = max_pool_backward(dy, argmax, shape, window)
    assert asnumpy(dx).tobytes() == np.zeros(shape, dtype).tobytes()


@pytest.mark.gpu
@pytest.mark.parametrize(("window", "used"), [(Window(2, 2), "_SCATTER"), (Window(3, 2, 1), "_GATHER")], ids=str)
def test_windows_that_do_not_overlap_are_scattered(window, used, monkeypatch):
    launched = []
    for name in ("_SCATTER", "_GATHER"):
        monkeypatch.setattr(module, name, lambda *_, name=name: launched.append(name))
    with backend.use("cuda"):
        x = whole((1, 2, 6, 6))
        y, argmax = max_pool(x, window)
        max_pool_backward(y, argmax, x.shape, window)
    assert launched == [used]


@pytest.mark.parametrize("window", [Window(2, 2), Window(3, 2, 1), Window((3, 2), 1, 0, (1, 2))], ids=str)
def test_max_gradient_is_that_of_the_forward(device, window):
    x = backend.asarray(np.random.default_rng(0).permutation(2 * 2 * 6 * 7).reshape(2, 2, 6, 7) / 7.0)  # far from ties
    y, argmax = max_pool(x, window)
    dy = normal(y.shape, "float64")
    dx = max_pool_backward(dy, argmax, x.shape, window)
    check_gradient(lambda x: (max_pool(x, window)[0] * dy).sum(), [x], [dx])


@pytest.mark.parametrize(("size", "kept"), [(16, "uint8"), (17, "int32")])
@pytest.mark.parametrize("stride", [1, 20])
def test_winners_of_small_and_of_large_windows(device, size, kept, stride):
    """A byte is kept for each winner where a window has at most 256 taps, of which the last wins here."""
    x, window = backend.asarray(np.arange(800, dtype="float32").reshape(1, 1, 20, 40)), Window(size, stride, 1)
    y, winners = pool(x, window)
    assert winners.dtype == kept
    dx = pool_backward(y, winners, x.shape, window)
    np.testing.assert_array_equal(asnumpy(dx), asnumpy(max_pool_backward(y, max_pool(x, window)[1], x.shape, window)))
    assert asnumpy(dx).sum() == pytest.approx(asnumpy(y).sum())


def test_taps_are_not_taken_for_indices(device):
    y, taps = pool(backend.xp.ones((1, 1, 4, 4), "float32"), Window(2, 2))
    with pytest.raises(TypeError, match="argmax must be int32, as max_pool returns it, got uint8"):
        max_pool_backward(y, taps, (1, 1, 4, 4), Window(2, 2))
