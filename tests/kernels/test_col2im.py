"""col2im against a loop that adds tap after tap: the same order of additions, so every bit must agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backend
from backend import array_module, asnumpy, workspace
from kernels import col2im as module
from kernels.col2im import col2im
from kernels.core import native
from kernels.core.window import Window
from kernels.im2col import im2col
from tests.support import oracles
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
    whole,
)
from tests.support.geometries import cases

ORDERS = st.sampled_from(["CHW", "HWC"])
CHANNELS = st.sampled_from([1, 1, 2, 3, 4, 5, 8, 17, 33])  # fewer and more than a vector has numbers
APART = [
    Window(2, 2), Window(1), Window(1, 3), Window(2, 3, 1), Window((2, 3), (4, 3), (1, 0, 2, 1)),
    Window(2, 3, 0, 2), Window((2, 1), (4, 1), "same", (3, 2)), Window(2, 2, rounding="ceil"),
]  # fmt: skip
"""Windows that do not overlap: side by side, with gaps between or within them, over padding and over the edge."""


def columns_of(case, make=normal):
    (oh, ow), (fh, fw) = case.output, case.geometry.kernel
    return make((case.shape[0] * oh * ow, case.shape[1] * fh * fw), case.dtype, case.seed)


def test_every_geometry_to_the_bit(device):
    @for_all(device, cases(CHANNELS, ceil=True), ORDERS)
    def check(case, order):
        columns = laid_out(columns_of(case), case.layout)
        with frozen(columns):
            x = col2im(columns, case.shape, case.window, order)
        wide = "float32" if case.dtype == "float16" else case.dtype
        expected = oracles.col2im(asnumpy(columns), case.shape, case.geometry, order, wide)
        assert_same(x, expected.astype(case.dtype))
        assert_channels_last(x)
        assert_separate(x, [columns])


def test_it_is_the_adjoint_of_im2col(device):
    """⟨im2col(x), c⟩ = ⟨x, col2im(c)⟩, exactly in whole numbers."""

    @for_all(device, cases(ceil=True, dtypes=("float64",)), ORDERS, cpu=40)
    def check(case, order):
        x, columns = whole(case.shape, "float64", case.seed), columns_of(case, whole)
        forward = float((im2col(x, case.window, order) * columns).sum())
        assert forward == float((x * col2im(columns, case.shape, case.window, order)).sum())


@pytest.mark.parametrize("channels", [1, 3, 70])
@pytest.mark.parametrize("order", ["CHW", "HWC"])
def test_threads_change_no_bit(device, order, channels):
    shape, window = (5, channels, 11, 7), Window((3, 2), (2, 1), (1, 2, 0, 1), (1, 2))
    columns = normal((5 * np.prod(window.over((11, 7)).output), 6 * channels))
    whole_batch = col2im(columns, shape, window, order)
    for count in (1, 2, 3, 5):
        with thread_limit(count), watched_shares() as shares:
            assert_same(col2im(columns, shape, window, order), whole_batch)
        assert shares == ([count] if native.available() and count > 1 else [])


@pytest.mark.parametrize("order", ["CHW", "HWC"])
def test_images_wider_than_a_band(device, order):
    """And of more channels than are summed up at once."""
    shape, window = (2, 70, 2, 600), Window((2, 3), (1, 2), (1, 0, 2, 1))
    columns = normal((2 * int(np.prod(window.over(shape[2:]).output)), 6 * 70), "float64")
    with backend.use("cpu"), native.enabled(False):
        expected = col2im(asnumpy(columns), shape, window, order)
    assert asnumpy(col2im(columns, shape, window, order)).tobytes() == expected.tobytes()


def test_windows_that_do_not_overlap_are_put_back_as_they_were(device):
    x = normal((2, 3, 6, 8), "float16")
    assert_same(col2im(im2col(x, Window(2, 2)), x.shape, Window(2, 2)), x)


def signed(shape, dtype, seed=0):
    """Zeros of both signs, infinities and numbers, on the active device."""
    rng = np.random.default_rng(seed)
    return backend.asarray(rng.choice([0.0, -0.0, 0.5, -1.5, 3.25, np.inf, -np.inf], shape).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["CHW", "HWC"])
@pytest.mark.parametrize("window", APART, ids=str)
def test_the_scatter_of_windows_that_do_not_overlap_is_the_gather(device, window, order, dtype, monkeypatch):
    """Bit for bit, zeros' signs and the CPU's result included; in memory that was not zero before, and never added."""
    assert not window.overlaps
    shape, taps = (2, 3, 7, 8), window.kernel[0] * window.kernel[1]
    columns = signed((2 * int(np.prod(window.over((7, 8)).output)), 3 * taps), dtype)
    with backend.use("cpu"):
        right = col2im(asnumpy(columns), shape, window, order)
    empty = workspace.empty
    monkeypatch.setattr(workspace, "empty", lambda *given: full_of_nan(empty(*given)))
    monkeypatch.setattr(module, "_SCATTER", lambda *_: pytest.fail("atomics where none are needed"))
    for method in ("gather", "scatter"):
        x = col2im(columns, shape, window, order, method)
        assert asnumpy(x).tobytes() == right.tobytes()
        assert x.dtype == dtype
        assert_channels_last(x)


def full_of_nan(array):
    array.fill(array_module(array).nan)
    return array


def test_only_windows_that_leave_pixels_out_need_zeros_before_a_scatter():
    """Where they leave none, setting the image to zero would be a pass over memory for nothing."""
    outcomes = set()

    @given(cases(ceil=True).filter(lambda case: not case.window.overlaps))
    def check(case):
        met = {(h, w) for *_, h, w in oracles.pixels(case.geometry, case.shape[2:])}
        covered = len(met) == case.shape[2] * case.shape[3]
        assert case.window.over(case.shape[2:]).has_gaps != covered
        outcomes.add(covered)

    check()
    assert outcomes == {True, False}


def test_a_pixel_counts_the_windows_that_hold_it(device):
    ones = col2im(whole((9, 4), most=0) + 1, (1, 1, 4, 4), Window(2))
    expected = [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]
    np.testing.assert_array_equal(asnumpy(ones)[0, 0], expected)


def test_pixels_that_no_window_holds_are_zero_in_recycled_memory(device):
    window, shape = Window(1, 3), (8, 16, 31, 31)
    columns = normal((8 * 11 * 11, 16))
    for _ in range(2):
        dx = asnumpy(col2im(columns, shape, window, "HWC"))
        np.testing.assert_array_equal(dx[:, :, ::3, ::3], asnumpy(columns).reshape(8, 11, 11, 16).transpose(0, 3, 1, 2))
        dx[:, :, ::3, ::3] = 0
        assert not dx.any()
        dx = None  # lets the buffer go, full of numbers


def test_float16_is_summed_in_float32(device):
    """2048 + 1 + 1 in float16, where each single 1 would be lost."""
    columns = whole((3, 3), "float16", most=0)
    columns[0, 2], columns[1, 1], columns[2, 0] = 1, 1, 2048
    assert float(col2im(columns, (1, 1, 1, 5), Window((1, 3)))[0, 0, 0, 2]) == 2050


def test_taps_ascend_and_meet_every_pixel_once():
    window, image = Window((3, 2), (2, 1), (2, 1), (1, 2)), (4, 5)
    taps = window.over(image).taps
    assert [(tap.row, tap.column) for tap in taps] == sorted((tap.row, tap.column) for tap in taps)
    met = set()
    for tap in taps:
        outs = [(oh, ow) for oh in range(9)[tap.out_rows] for ow in range(9)[tap.out_columns]]
        pixels = [(row, column) for row in range(4)[tap.in_rows] for column in range(5)[tap.in_columns]]
        met |= {(*out, tap.row, tap.column, *pixel) for out, pixel in zip(outs, pixels, strict=True)}
    geometry = oracles.Geometry((3, 2), (2, 1), (2, 2, 1, 1), (1, 2))
    assert met == set(oracles.pixels(geometry, image))


def test_taps_that_only_meet_padding_are_left_out():
    assert [(tap.row, tap.column) for tap in Window(3, 9, 1).over((1, 1)).taps] == [(1, 1)]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "complex64"])
def test_refusal_of_a_dtype(device, dtype):
    with pytest.raises(TypeError, match=f"col2im needs float16, float32 or float64, got {dtype}"):
        col2im(whole((9, 8)).astype(dtype), (1, 2, 4, 4), Window(2))


@pytest.mark.parametrize(
    ("columns", "shape", "order", "message"),
    [
        ((9, 8), (1, 2, 4, 4), "WHC", "'CHW', 'HWC', got 'WHC'"),
        ((8, 8), (1, 2, 4, 4), "CHW", r"columns of \(8, 8\) .*\(1, 2, 4, 4\).*need \(9, 8\)"),
        ((9, 4), (1, 2, 4, 4), "HWC", r"columns of \(9, 4\)"),
        ((72,), (1, 2, 4, 4), "CHW", r"columns of \(72,\)"),
        ((9, 8), (1, 2, 1, 4), "CHW", "window of 2 does not fit the image's height: 1"),
    ],
)
def test_refusals(device, columns, shape, order, message):
    with pytest.raises(ValueError, match=message):
        col2im(whole(columns), shape, Window(2), order)
