"""im2col against one loop over every window: copies, so every bit must agree."""

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import asnumpy
from kernels.core import launch, native
from kernels.core.layout import to_nhwc
from kernels.core.tiling import Part
from kernels.core.window import Window
from kernels.im2col import device_columns, im2col
from tests.support import oracles
from tests.support.checks import (
    assert_same,
    assert_separate,
    for_all,
    frozen,
    laid_out,
    normal,
    thread_limit,
    watched_shares,
    whole,
)
from tests.support.geometries import cases

ORDERS = st.sampled_from(["CHW", "HWC"])
CHANNELS = st.sampled_from([1, 1, 2, 3, 4, 5, 8, 17, 33])  # fewer and more than a vector has numbers


def test_every_geometry(device):
    dtypes = ("float16", "float32", "float64", "int32", "uint8", "bool", "complex128")

    @for_all(device, cases(CHANNELS, ceil=True, dtypes=dtypes), ORDERS)
    def check(case, order):
        x = laid_out(whole(case.shape, case.dtype, case.seed), case.layout)
        with frozen(x):
            columns = im2col(x, case.window, order)
        assert columns.flags.c_contiguous
        assert_same(columns, oracles.im2col(asnumpy(x), case.geometry, order))
        assert_separate(columns, [x])


@pytest.mark.parametrize("channels", [1, 3, 70])
@pytest.mark.parametrize("order", ["CHW", "HWC"])
def test_threads_change_no_bit(device, order, channels):
    x, window = normal((5, channels, 11, 7)), Window((3, 2), (2, 1), (1, 2, 0, 1), (1, 2))
    whole_batch = im2col(x, window, order)
    for count in (1, 2, 3, 5):
        with thread_limit(count), watched_shares() as shares:
            assert_same(im2col(x, window, order), whole_batch)
        assert shares == ([count] if native.available() and count > 1 else [])


def test_large_windows(device):
    """Of more taps than are looked at together, over more channels than fit a vector."""
    x, window = normal((2, 70, 11, 12)), Window((9, 8), 2, 3)
    for order in ("CHW", "HWC"):
        expected = oracles.im2col(asnumpy(x), oracles.Geometry((9, 8), (2, 2), (3, 3, 3, 3)), order)
        assert_same(im2col(x, window, order), expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_bit_is_copied(device, dtype):
    """Also that which makes a NaN a signaling one: numbers are not converted on their way."""
    bits = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 7 * np.dtype(dtype).itemsize), "uint8")
    x = bits.view(dtype)
    for order in ("CHW", "HWC"):
        columns = asnumpy(im2col(backend.asarray(x), Window(1), order))
        assert columns.tobytes() == x.transpose(0, 2, 3, 1).tobytes()


@pytest.mark.gpu
@pytest.mark.parametrize("order", ["CHW", "HWC"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((5, 1, 28, 28), Window(3, padding=1)),
        ((3, 64, 9, 8), Window(3, padding=1)),
        ((2, 3, 30, 31), Window(5, (2, 3), 2)),
        ((2, 300, 6, 6), Window(1, 2)),
    ],
    ids=str,
)
def test_a_gpu_copies_runs_of_many_numbers_with_either_index(shape, window, wide, order, monkeypatch):
    """Large enough that a thread copies several numbers: its place must move on by the right step."""
    with backend.use("cpu"):
        x = whole(shape)
        expected = im2col(x, window, order)
    if wide:
        monkeypatch.setattr(launch, "_NARROW", 0)
    with backend.use("cuda"):
        assert_same(im2col(backend.asarray(x), window, order), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("order", ["CHW", "HWC"])
def test_a_gpu_makes_the_columns_of_any_part_and_channels(order):
    window, shape = Window((3, 2), (2, 3), (2, 1), (2, 1)), (3, 6, 12, 7)
    oh, ow = window.over(shape[2:]).output
    with backend.use("cuda"):
        x = normal(shape)
        for channels in (slice(0, 6), slice(2, 4), slice(3, 6), slice(5, 6)):
            expected = oracles.im2col(
                asnumpy(x[:, channels]), oracles.Geometry((3, 2), (2, 3), (2, 2, 1, 1), (2, 1)), order
            )
            expected = expected.reshape(3, oh, ow, -1)
            for images, rows in (((0, 3), (0, oh)), ((1, 2), (0, oh)), ((0, 1), (1, 3)), ((2, 3), (oh - 1, oh))):
                part = Part(slice(*images), slice(*rows))
                columns = device_columns(to_nhwc(x), window.over(x.shape[2:]), part, channels, order)
                assert_same(columns, expected[part.images, part.rows].reshape(len(columns), -1))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8])
def test_a_gpu_copies_neighbouring_channels_together(dtype, channels):
    """Two or four as one number where their count and their address allow it: here they lie at odd ones too."""
    window, shape = Window((2, 3), 1, 1), (2, 4, 5, channels)
    size = int(np.prod(shape))
    numbers = np.random.default_rng(0).integers(0, 100, size + 3).astype(dtype)
    for start in range(4):
        x = numbers[start : start + size].reshape(shape).transpose(0, 3, 1, 2)
        with backend.use("cuda"):
            on_device = backend.asarray(numbers)[start : start + size].reshape(shape).transpose(0, 3, 1, 2)
            geometry = oracles.Geometry((2, 3), pads=(1, 1, 1, 1))
            assert_same(im2col(on_device, window, "HWC"), oracles.im2col(x, geometry, "HWC"))


def test_the_order_of_a_row_as_in_the_book():
    """2 channels, a 2x2 window over 2x3 images: written out."""
    x = np.arange(12.0).reshape(1, 2, 2, 3)
    expected = [[0, 1, 3, 4, 6, 7, 9, 10], [1, 2, 4, 5, 7, 8, 10, 11]]
    np.testing.assert_array_equal(im2col(x, Window(2)), expected)
    expected = [[0, 6, 1, 7, 3, 9, 4, 10], [1, 7, 2, 8, 4, 10, 5, 11]]
    np.testing.assert_array_equal(im2col(x, Window(2), "HWC"), expected)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 3, 4, 4), Window(1)),
        ((2, 3, 5, 5), Window(1, 3)),
        ((1, 2, 9, 9), Window(2, 4)),
        ((2, 2, 1, 1), Window(4, padding=3)),
        ((2, 1, 2, 3), Window((4, 3), padding=(3, 3, 2, 1), dilation=(1, 2))),
        ((1, 1, 2, 2), Window(1, padding=3)),
        ((2, 3, 7, 8), Window((2, 3), (2, 1), 1, (1, 2))),
        ((3, 2, 5, 4), Window(3, 2, "same")),
        ((0, 3, 5, 5), Window(3)),
    ],
    ids=str,
)
def test_named_geometries(device, shape, window):
    x = whole(shape)
    geometry = oracles.Geometry(window.kernel, window.stride, window.over(shape[2:]).pads, window.dilation)
    for order in ("CHW", "HWC"):
        assert_same(im2col(x, window, order), oracles.im2col(asnumpy(x), geometry, order))


def test_nan_and_infinity_are_copied_and_padding_is_zero(device):
    x = backend.asarray(np.array([[[[np.nan, np.inf], [-np.inf, -0.0]]]], "float32"))
    columns = asnumpy(im2col(x, Window(2, padding=1)))
    assert_same(columns, oracles.im2col(asnumpy(x), oracles.Geometry((2, 2), pads=(1, 1, 1, 1))))
    assert np.isfinite(columns[:, 0]).sum() == 6  # the upper left tap meets the NaN and two infinities once each


def test_a_large_batch_in_recycled_memory(device):
    """Twice, so that the second runs in the first one's buffers: what they held must not show in the padding."""
    window, x = Window(3, padding=1), normal((4, 16, 40, 40))
    first = asnumpy(im2col(x, window)).copy()
    im2col(x + 7, window)
    assert_same(im2col(x, window), first)
    edge = first.reshape(4, 40, 40, 16, 3, 3)[:, 0, :, :, 0]
    assert not edge.any()
    np.testing.assert_array_equal(first.reshape(4, 40, 40, 16, 3, 3)[..., 1, 1], asnumpy(x).transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("shape", "order", "message"),
    [
        ((3, 4, 4), "CHW", r"im2col needs images \(N, C, H, W\), got shape \(3, 4, 4\)"),
        ((1, 1, 4, 4), "WHC", "'CHW', 'HWC', got 'WHC'"),
        ((1, 1, 2, 4), "CHW", "window of 3 does not fit the image's height: 2"),
    ],
)
def test_refusals(device, shape, order, message):
    with pytest.raises(ValueError, match=message):
        im2col(whole(shape), Window(3), order)
