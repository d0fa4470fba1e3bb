"""Max and average pooling against loops over every window."""

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import asnumpy
from kernels.core import launch, native
from kernels.core.window import Window
from kernels.max_pooling import max_pool, max_pool_backward, pool, pool_backward
from kernels.pooling import (
    average_pool,
    average_pool_backward,
    global_average_pool,
    global_average_pool_backward,
)
from tests.support import oracles
from tests.support.checks import (
    DTYPES,
    assert_channels_last,
    assert_close,
    assert_same,
    assert_separate,
    check_gradient,
    for_all,
    frozen,
    laid_out,
    normal,
    thread_limit,
    variants,
    watched_shares,
    whole,
)
from tests.support.geometries import cases

CHANNELS = st.sampled_from([1, 1, 2, 3, 4, 5, 8, 17, 33])  # fewer and more than a vector has numbers
THREADS = st.sampled_from([1, 2, 3, 5])
CASES = cases(CHANNELS, ceil=True, no_empty_window=True)


def with_special_numbers(x, seed):
    """Some pixels replaced by NaN and the infinities."""
    x = asnumpy(x).copy()
    rng = np.random.default_rng(seed)
    for value in (np.nan, np.nan, np.inf, -np.inf, -np.inf):
        x[rng.random(x.shape) < 0.08] = value
    return backend.asarray(x)


# -- max ------------------------------------------------------------------------------------------------------


def test_max_of_every_geometry(device):
    """Small whole numbers: most windows hold ties, and only copies and comparisons happen."""

    @for_all(device, CASES, st.booleans(), THREADS)
    def check(case, special, count):
        x = whole(case.shape, case.dtype, case.seed, most=2)
        x = laid_out(with_special_numbers(x, case.seed) if special else x, case.layout)
        with frozen(x), thread_limit(count), watched_shares():
            y, argmax = max_pool(x, case.window)
        expected_y, expected_argmax = oracles.max_pool(asnumpy(x), case.geometry)
        assert_same(argmax, expected_argmax, "int32")
        assert_same(y, expected_y)
        assert_channels_last(y, argmax)
        assert_separate((y, argmax), [x])


def test_max_backward_of_every_geometry(device):
    @for_all(device, CASES, THREADS)
    def check(case, count):
        x = with_special_numbers(whole(case.shape, case.dtype, case.seed, most=2), case.seed)
        dy = laid_out(whole((*case.shape[:2], *case.output), case.dtype, case.seed + 1), case.layout)
        argmax = laid_out(max_pool(x, case.window)[1], case.layout)
        with frozen(dy, argmax), thread_limit(count), watched_shares():
            dx = max_pool_backward(dy, argmax, case.shape, case.window)
        _, expected_argmax = oracles.max_pool(asnumpy(x), case.geometry)
        assert_same(dx, oracles.max_pool_backward(asnumpy(dy), expected_argmax, case.shape), case.dtype)
        assert_channels_last(dx)
        assert_separate(dx, [dy, argmax])


def test_max_has_the_bits_of_numpy(device):
    """Of zeros of both signs and infinities, through either kind of winners."""

    @for_all(device, CASES, st.integers(0, 1000))
    def check(case, seed):
        draw = np.random.default_rng(seed).choice
        x = draw(np.array([0.0, -0.0, np.inf, -np.inf, 2, -2], case.dtype), case.shape)
        dy = draw(np.array([0.0, -0.0, 0.1, 0.5, -3], case.dtype), (*case.shape[:2], *case.output))
        with backend.use("cpu"), native.enabled(False):
            expected = all_of_max(x, dy, case.window)
        for one, other in zip(all_of_max(backend.asarray(x), backend.asarray(dy), case.window), expected, strict=True):
            assert asnumpy(one).tobytes() == other.tobytes()


def all_of_max(x, dy, window):
    (y, argmax), (_, taps) = max_pool(x, window), pool(x, window)
    by_index, by_taps = max_pool_backward(dy, argmax, x.shape, window), pool_backward(dy, taps, x.shape, window)
    return y, argmax, taps, by_index, by_taps


def pool_row(*pixels, window, dtype="float32"):
    y, argmax = max_pool(backend.asarray(np.array(pixels, dtype).reshape(1, 1, 1, -1)), window)
    return asnumpy(y).ravel().tolist(), asnumpy(argmax).ravel().tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_who_wins(device, dtype):
    nan, inf = np.nan, np.inf
    pair = Window((1, 2), (1, 2))
    assert pool_row(1, 1, 2, 1, 1, 2, window=pair, dtype=dtype) == ([1, 2, 2], [0, 2, 5])
    assert pool_row(-inf, -inf, -inf, -1, window=pair, dtype=dtype) == ([-inf, -1], [0, 3])
    y, argmax = pool_row(inf, nan, nan, inf, nan, nan, 1, nan, window=pair, dtype=dtype)
    assert np.isnan(y).all()
    assert argmax == [1, 2, 4, 7]
    y, argmax = pool_row(-0.0, 0.0, 0.0, -0.0, window=pair, dtype=dtype)
    assert (str(y), argmax) == ("[-0.0, 0.0]", [0, 2])


def test_padding_never_wins(device):
    """Over negative pixels a zero of the padding would; and -inf of the padding must not be pointed to."""
    x = backend.asarray(np.full((1, 1, 2, 2), -np.inf, "float32"))
    x[0, 0, 1, 1] = -5
    y, argmax = max_pool(x, Window(2, 1, 1))
    np.testing.assert_array_equal(asnumpy(argmax)[0, 0], [[0, 0, 1], [0, 3, 3], [2, 3, 3]])
    np.testing.assert_array_equal(asnumpy(y)[0, 0], [[-np.inf, -np.inf, -np.inf], [-np.inf, -5, -5], [-np.inf, -5, -5]])


# -- average --------------------------------------------------------------------------------------------------


def test_average_of_every_geometry(device):
    @for_all(device, CASES, st.booleans(), THREADS)
    def check(case, count_padding, count):
        x = laid_out(normal(case.shape, case.dtype, case.seed), case.layout)
        dy = laid_out(normal((*case.shape[:2], *case.output), case.dtype, case.seed + 1), case.layout)
        with frozen(x, dy), thread_limit(count), watched_shares():
            y = average_pool(x, case.window, count_padding)
            dx = average_pool_backward(dy, case.shape, case.window, count_padding)
        terms = case.geometry.kernel[0] * case.geometry.kernel[1] + 2  # and 1 / count, and the product with it

        def compare(actual, operation, array, *shape):
            expected = operation(array, *shape, case.geometry, count_padding)
            sizes = operation(abs(array), *shape, case.geometry, count_padding)
            assert_close(actual, expected, case.dtype, terms=terms, magnitude=sizes, roundings=1)

        compare(y, oracles.average_pool, asnumpy(x))
        compare(dx, oracles.average_pool_backward, asnumpy(dy), case.shape)
        assert_channels_last(y, dx)
        assert_separate((y, dx), [x, dy])


@pytest.mark.parametrize("dtype", DTYPES)
def test_average_is_exact_where_counts_are_powers_of_two(device, dtype):
    @for_all(device, CASES.filter(lambda case: set(case.geometry.kernel) <= {1, 2, 4}), cpu=25, cuda=2)
    def check(case):
        x = whole(case.shape, dtype, case.seed)
        window, geometry = Window(case.geometry.kernel, 2), oracles.Geometry(case.geometry.kernel, (2, 2))
        if min(case.shape[2:]) >= 4:
            expected = oracles.average_pool(asnumpy(x), geometry)
            assert_same(average_pool(x, window), expected, dtype)
            dy = whole(expected.shape, dtype, 1)
            expected = oracles.average_pool_backward(asnumpy(dy), x.shape, geometry)
            assert_same(average_pool_backward(dy, x.shape, window), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 20])
@pytest.mark.parametrize("window", [Window(3, 2, 1, rounding="ceil"), Window(3, 1, "same", 2)], ids=str)
def test_averages_have_the_bits_of_numpy(device, window, channels, dtype, monkeypatch):
    """The sums have one order everywhere, and no product is fused with a sum."""
    arrays = normal((2, channels, 8, 11), dtype), normal((2, channels, *window.over((8, 11)).output), dtype, 1)
    for count_padding in (False, True):
        with backend.use("cpu"), native.enabled(False):
            expected = averages(*map(asnumpy, arrays), window, count_padding)
        for most in (launch._NARROW, 0)[: 2 if device.kind == "cuda" else 1]:  # the type of a GPU's index
            monkeypatch.setattr(launch, "_NARROW", most)
            for one, other in zip(averages(*arrays, window, count_padding), expected, strict=True):
                assert asnumpy(one).tobytes() == other.tobytes()


def averages(x, dy, *options):
    return average_pool(x, *options), average_pool_backward(dy, x.shape, *options)


def test_what_counts_in_the_mean(device):
    x = whole((1, 1, 1, 3), most=0) + 6
    padded = Window((1, 3), (1, 2), (0, 0, 1, 1))
    np.testing.assert_array_equal(asnumpy(average_pool(x, padded)).ravel(), [6, 6])
    np.testing.assert_array_equal(asnumpy(average_pool(x, padded, count_padding=True)).ravel(), [4, 4])
    # "ceil" adds a window at pixel 2 whose last position is beyond the padding: it holds one pixel, one zero
    over = Window((1, 3), (1, 3), (0, 0, 1, 1), rounding="ceil")
    np.testing.assert_array_equal(asnumpy(average_pool(x, over, count_padding=True)).ravel(), [4, 3])
    np.testing.assert_array_equal(asnumpy(average_pool(x, over)).ravel(), [6, 6])


def test_float16_is_averaged_in_float32(device):
    """The sum of 4 times 40000 is no float16, their mean is."""
    x = whole((1, 1, 2, 2), "float16", most=0) + 40000
    assert asnumpy(average_pool(x, Window(2))).item() == np.float16(40000)


@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize("window", [Window(2, 2), Window(3, 2, 1), Window(3, 2, 1, rounding="ceil")], ids=str)
def test_average_gradient_is_that_of_the_forward(device, window, count_padding):
    x = normal((2, 2, 6, 7), "float64")
    y = average_pool(x, window, count_padding)
    dy = normal(y.shape, "float64", 1)
    dx = average_pool_backward(dy, x.shape, window, count_padding)
    check_gradient(lambda x: (average_pool(x, window, count_padding) * dy).sum(), [x], [dx])


# -- both -----------------------------------------------------------------------------------------------------


def all_four(x, dy, window):
    y, argmax = max_pool(x, window)
    return (
        y,
        argmax,
        max_pool_backward(dy, argmax, x.shape, window),
        average_pool(x, window),
        average_pool_backward(dy, x.shape, window),
    )


@pytest.mark.parametrize(
    "window", [Window(2, 2), Window(3, 2, 1), Window(1), Window(2, 3), Window(7), Window(3, 1, "same", 2)], ids=str
)
def test_any_layout_of_the_inputs(device, window):
    x = normal((2, 3, 7, 8))
    dy = normal((2, 3, *window.over((7, 8)).output), seed=1)
    expected = all_four(x, dy, window)
    for (_, x_), (_, dy_) in zip(variants(x), reversed(variants(dy)), strict=True):
        for one, other in zip(expected, all_four(x_, dy_, window), strict=True):
            assert_same(other, one)


@pytest.mark.parametrize("channels", [1, 3, 20])
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(device, dtype, channels):
    x, window = normal((7, channels, 12, 13), dtype), Window(3, 2, 1)
    dy = normal((7, channels, 6, 7), dtype, 1)
    expected = all_four(x, dy, window)
    for count in (1, 2, 3, 5):
        with thread_limit(count), watched_shares() as shares:
            results = all_four(x, dy, window)
        assert shares == ([count] * 4 if native.available() and count > 1 else [])
        for one, other in zip(expected, results, strict=True):
            assert_same(other, one)


def test_a_large_batch_in_recycled_memory(device):
    x, window = whole((8, 16, 33, 33)), Window(2, 3)
    dy = whole((8, 16, 11, 11), seed=1)
    expected = [asnumpy(result).copy() for result in all_four(x, dy, window)]
    for _ in range(3):
        all_four(x + 50, dy + 50, window)
        for one, other in zip(expected, all_four(x, dy, window), strict=True):
            assert_same(other, one)
    patches = asnumpy(x).reshape(8, 16, 11, 3, 11, 3)[:, :, :, :2, :, :2]
    np.testing.assert_array_equal(expected[0], patches.max(axis=(3, 5)))


@pytest.mark.parametrize("shape", [(0, 3, 6, 6), (2, 0, 6, 6), (0, 0, 6, 6)])
def test_nothing_in_nothing_out(device, shape):
    results = all_four(whole(shape), whole((*shape[:2], 3, 3)), Window(2, 2))
    for result, expected in zip(results, [(3, 3), (3, 3), (6, 6), (3, 3), (6, 6)], strict=True):
        assert result.shape == (*shape[:2], *expected)


@pytest.mark.parametrize("operation", [max_pool, average_pool])
@pytest.mark.parametrize(
    ("shape", "window", "message"),
    [
        ((3, 6, 6), Window(2), r"images \(N, C, H, W\), got shape \(3, 6, 6\)"),
        ((1, 1, 1, 6), Window(2), "window of 2 does not fit the image's height: 1"),
        (
            (1, 1, 3, 4),
            Window(1, padding=1),
            "over images of 3x4: the windows of output row 0 hold nothing but padding",
        ),
        ((1, 1, 3, 4), Window((3, 2), 1, (1, 1, 0, 2)), "output column 4 hold nothing but padding"),
        ((1, 1, 2, 4), Window((2, 1), 1, (2, 0), (3, 1)), "output row 1 hold nothing but padding"),
    ],
)
def test_refusals(device, operation, shape, window, message):
    with pytest.raises(ValueError, match=message):
        operation(whole(shape), window)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_refusals_of_a_dtype(device, dtype):
    x, dy = whole((1, 2, 4, 4)).astype(dtype), whole((1, 2, 2, 2)).astype(dtype)
    argmax, window = whole((1, 2, 2, 2), "int32", most=0), Window(2, 2)
    needed = f"pooling needs float16, float32 or float64, got {dtype}"
    for operation, name in ((max_pool, "max"), (average_pool, "average")):
        with pytest.raises(TypeError, match=f"{name} {needed}"):
            operation(x, window)
    with pytest.raises(TypeError, match=needed):
        max_pool_backward(dy, argmax, x.shape, window)
    with pytest.raises(TypeError, match=needed):
        average_pool_backward(dy, x.shape, window)


@pytest.mark.parametrize("shape", [(2, 3, 2, 3), (2, 2, 3, 3), (1, 3, 3, 3), (3, 3, 3)])
def test_refusals_of_a_wrong_gradient(device, shape):
    window, right = Window(2, 2), whole((2, 3, 3, 3), "int32", most=0)
    message = r"gradient has shape \({}\), the output \(2, 3, 3, 3\)".format(", ".join(map(str, shape)))
    with pytest.raises(ValueError, match=message):
        max_pool_backward(whole(shape), right, (2, 3, 6, 6), window)
    with pytest.raises(ValueError, match=message):
        average_pool_backward(whole(shape), (2, 3, 6, 6), window)


@pytest.mark.parametrize("shape", [(2, 1, 3, 3), (1, 3, 3, 3), (2, 3, 4, 4)])
def test_refusal_of_another_argmax(device, shape):
    """One that broadcasts, or that belongs to another output, would give gradients to the wrong pixels in silence."""
    with pytest.raises(ValueError, match=r"argmax"):
        max_pool_backward(whole((2, 3, 3, 3)), whole(shape, "int32", most=0), (2, 3, 6, 6), Window(2, 2))


@pytest.mark.gpu
def test_host_and_device_arrays_do_not_mix():
    with backend.use("cuda"):
        x, window = whole((1, 2, 4, 4)), Window(2, 2)
        y, argmax = max_pool(x, window)
        with pytest.raises(TypeError, match=r"numpy.*cupy"):
            max_pool_backward(asnumpy(y), argmax, x.shape, window)


# -- global -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mean_of_every_plane_and_its_gradient(device, dtype):
    x, dy = normal((3, 2, 4, 5), dtype, 1), normal((3, 2), dtype, 2)
    for _, given in variants(x):
        with frozen(given, dy):
            y, dx = global_average_pool(given), global_average_pool_backward(dy, x.shape)
        assert_close(y, np.float64(asnumpy(x)).mean(axis=(2, 3)), dtype, terms=20, magnitude=4)
        assert_channels_last(dx)
        expected = np.broadcast_to((asnumpy(dy) / np.dtype(dtype).type(20))[:, :, None, None], x.shape)
        assert_same(dx, expected, dtype)


def test_refusals_of_the_global_mean(device):
    for shape, message in (((2, 3, 0, 4), "at least one pixel"), ((3, 4), r"images \(N, C, H, W\), got shape")):
        with pytest.raises(ValueError, match=message):
            global_average_pool(whole(shape))
    for shape in ((2, 4), (1, 3), (2, 3, 1, 1)):
        with pytest.raises(ValueError, match=r"dy must be \(N, C\) of images \(2, 3, 4, 5\)"):
            global_average_pool_backward(whole(shape), (2, 3, 4, 5))
    with pytest.raises(TypeError, match="needs float16, float32 or float64, got int32"):
        global_average_pool(whole((2, 3, 4, 5), "int32"))


# -- several channels at once ---------------------------------------------------------------------------------


def shifted(x):
    """Return a copy of a channels-last array that begins one number behind a multiple of 16 bytes."""
    storage = asnumpy(x).transpose(0, 2, 3, 1)
    room = backend.xp.empty(x.size + 1, x.dtype)
    room[1:] = backend.asarray(np.ascontiguousarray(storage).ravel())
    return room[1:].reshape(storage.shape).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [Window(2, 2), Window(3, 2, 1), Window(20, 1, 10), Window(2, 3)], ids=str)
@pytest.mark.parametrize("channels", [8, 12, 40])
def test_addresses_change_no_bit(device, channels, window, dtype):
    """Where a GPU's threads may take several channels at once, and where the addresses do not let them."""
    x = with_special_numbers(whole((2, channels, 21, 23), dtype, 1, most=3), 2)
    y, winners = pool(x, window)
    other, other_winners = pool(shifted(x), window)
    assert_same(other, asnumpy(y), dtype)
    assert np.array_equal(asnumpy(winners), asnumpy(other_winners))
    dy = normal(y.shape, dtype, 3)
    dx = pool_backward(dy, winners, x.shape, window)
    assert_same(pool_backward(shifted(dy), winners, x.shape, window), asnumpy(dx), dtype)
