"""Convolution and its input gradient in C: every tail of a tile, every way to meet the border, ranges of any length.

Whole numbers make every sum exact: results must agree with loops over every product to the last bit.
"""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import tuning
from kernels import activations, convolution_native
from kernels.convolution import convolution, convolution_backward_input
from kernels.core import native
from kernels.core.filters import flipped
from kernels.core.window import Window
from tests.support import oracles
from tests.support.checks import DTYPES, assert_close, assert_same, frozen, normal, thread_limit, whole
from tests.support.geometries import PADDINGS, WindowCase, cases

pytestmark = pytest.mark.usefixtures("in_c")

THREADS = (1, 2, 3, 5)


class Sizes(NamedTuple):
    """A geometry with groups, and the numbers that a chunk of padded images has room for."""

    case: WindowCase
    groups: int
    own: int
    filters: int
    room: int


WIDE_PADDINGS = st.one_of(PADDINGS, st.integers(4, 7))


@st.composite
def sizes(draw):
    groups, own = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 17]))
    filters = draw(st.one_of(st.integers(1, 12), st.integers(13, 70)))
    case = draw(cases(channels=st.just(groups * own), ceil=True, paddings=WIDE_PADDINGS))
    return Sizes(case, groups, own, filters, draw(st.sampled_from([1, 1, 300, 1 << 15])))


def operands(given, make):
    case, fn = given.case, given.groups * given.filters
    x = make(case.shape, case.dtype, case.seed)
    weight = make((fn, given.own, *case.geometry.kernel), case.dtype, case.seed + 1)
    return (
        x,
        weight,
        make((fn,), case.dtype, case.seed + 2),
        make((len(x), fn, *case.output), case.dtype, case.seed + 3),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [15, 16, 17, 20, 21, 22, 24, 25, 28, 29, 31, 32, 33])
@pytest.mark.parametrize("filters", [4, 16, 33])
def test_every_end_of_a_row_exactly(width, filters, dtype):
    """Tiles of the most pixels, of 8, 6 and 4, and those computed again together with others."""
    window, geometry = Window(3, padding=1), oracles.Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), False)
    shapes = (1, 2, 3, width), (filters, 2, 3, 3), (filters,), (1, filters, 3, width)
    x, weight, bias, dy = (whole(shape, dtype, seed) for seed, shape in enumerate(shapes))
    with frozen(x, weight, bias, dy):
        y, dx = convolution(x, weight, bias, window), convolution_backward_input(dy, weight, x.shape, window)
    assert_same(y, oracles.convolution(x, weight, bias, geometry, 1), dtype)
    assert_same(dx, oracles.convolution_backward_input(dy, weight, x.shape, geometry, 1), dtype)


@settings(max_examples=150)
@given(sizes(), st.sampled_from(THREADS), st.booleans())
def test_every_size_exactly(given, threads, relu):
    x, weight, bias, dy = operands(given, whole)
    case, groups = given.case, given.groups
    with pytest.MonkeyPatch.context() as patch, thread_limit(threads), frozen(x, weight, bias, dy):
        patch.setattr(convolution_native, "_ROOM", given.room)
        patch.setattr(tuning, "WORTH_CUTTING", 1)
        y = convolution(x, weight, bias, case.window, groups, relu=relu)
        dx = convolution_backward_input(dy, weight, case.shape, case.window, groups)
    expected = oracles.convolution(x, weight, bias, case.geometry, groups)
    if relu:
        y, positive = y
        assert_same(positive, expected > 0)
        expected = np.maximum(expected, 0)
    assert_same(y, expected, case.dtype)
    assert_same(dx, oracles.convolution_backward_input(dy, weight, case.shape, case.geometry, groups), case.dtype)


@settings(max_examples=60)
@given(sizes())
def test_rounding_is_that_of_a_sum(given):
    x, weight, bias, dy = operands(given, normal)
    case, groups = given.case, given.groups
    taps = weight.shape[2] * weight.shape[3]
    y = convolution(x, weight, bias, case.window, groups)
    dx = convolution_backward_input(dy, weight, case.shape, case.window, groups)
    forward, backward = oracles.convolution, oracles.convolution_backward_input
    of_y = [forward(*each, case.geometry, groups) for each in ((x, weight, bias), map(abs, (x, weight, bias)))]
    of_dx = [backward(*each, case.shape, case.geometry, groups) for each in ((dy, weight), map(abs, (dy, weight)))]
    assert_close(y, of_y[0], case.dtype, terms=given.own * taps + 1, magnitude=of_y[1])
    assert_close(dx, of_dx[0], case.dtype, terms=given.filters * taps, magnitude=of_dx[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "filters", "window", "groups"),
    [
        ((7, 3, 13, 11), 30, Window(5, padding=2), 1),
        ((3, 1, 40, 40), 17, Window((3, 7), (2, 1), (4, 0, 1, 9), (1, 3)), 1),
        ((4, 16, 9, 9), 48, Window(3, padding=1), 2),
        ((29, 8, 4, 3), 18, Window(3, padding=2), 1),
        ((2, 24, 15, 8), 70, Window(3, 2, 1), 1),
        ((3, 1400, 4, 4), 70, Window(1), 1),
    ],
    ids=str,
)
def test_no_bit_depends_on_the_threads(monkeypatch, dtype, shape, filters, window, groups):
    monkeypatch.setattr(tuning, "WORTH_CUTTING", 1)
    x, weight = normal(shape, dtype), normal((filters, shape[1] // groups, *window.kernel), dtype, 1)
    bias, dy = normal((filters,), dtype, 2), normal((shape[0], filters, *window.over(shape[2:]).output), dtype, 3)
    results = []
    for room in (1, 1 << 15):
        monkeypatch.setattr(convolution_native, "_ROOM", room)
        for threads in THREADS:
            with thread_limit(threads):
                y = convolution(x, weight, bias, window, groups)
                results.append((y, convolution_backward_input(dy, weight, shape, window, groups)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_same(two, one)


@pytest.mark.parametrize("filters", [1, 10, 30, 64])
def test_relu_is_that_of_the_whole(filters):
    """NaN passes, -0 does not: as `relu` says, in whole vectors and in parts of them."""
    x, weight = normal((2, 5, 9, 9)), normal((filters, 5, 3, 3), seed=1)
    x[0, 2, 4, 4], x[1, 0, 0, 0], x[1, 1, 8, 8] = np.nan, np.inf, -np.inf
    bias = normal((filters,), seed=2)
    bias[0] = -0.0
    weight[0] = 0
    y, positive = convolution(x, weight, bias, Window(3, padding=1), relu=True)
    expected, above = activations.relu(convolution(x, weight, bias, Window(3, padding=1)))
    assert y.tobytes() == expected.tobytes()
    assert_same(positive, above)


def test_nan_stays_in_the_windows_that_hold_it():
    x, weight = whole((2, 9, 6, 7)), whole((20, 9, 3, 3), seed=1, most=1) + 2
    x[1, 3, 0, 6] = np.nan
    y = convolution(x, weight, None, Window(3, padding=1))
    rows, columns = np.indices(y.shape)[2:]
    np.testing.assert_array_equal(np.isnan(y), (np.indices(y.shape)[0] == 1) & (rows <= 1) & (columns >= 5))


@pytest.mark.parametrize(("images", "padding"), [(1, 2), (7, 1), (30, 1), (30, 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_filters_that_are_not_finite_meet_the_padding(monkeypatch, value, images, padding):
    """Taps outside the image are skipped only where that changes nothing: 0 times infinity is NaN, as for NumPy.

    The input gradient meets the padding of the convolution that it is at stride 1, of dy with the flipped filters.
    """
    monkeypatch.setattr(tuning, "WORTH_CUTTING", 1)
    x, weight, window = whole((images, 9, 6, 7)), whole((20, 9, 3, 3), seed=1), Window(3, padding=padding)
    weight[4, 2, 0, 0] = weight[5, 1, 2, 1] = value
    dy = whole((images, 20, *window.over((6, 7)).output), seed=2)
    with native.enabled(False), np.errstate(invalid="ignore"):
        y, plain_dx = convolution(x, weight, None, window), convolution_backward_input(dy, weight, x.shape, window)
        dx = convolution(dy, flipped(weight, 1), None, Window(3, padding=2 - padding))
    inside = np.isfinite(dx)
    np.testing.assert_array_equal(plain_dx[inside], dx[inside])
    for threads in THREADS:
        with thread_limit(threads):
            assert_same(convolution(x, weight, None, window), y)
            assert_same(convolution_backward_input(dy, weight, x.shape, window), dx)


def test_a_gradient_of_pixels_that_no_window_meets_is_zero():
    dy, weight = whole((2, 20, 2, 2)) + 5, whole((20, 3, 2, 2), seed=1) + 5
    dx = convolution_backward_input(dy, weight, (2, 3, 9, 8), Window(2, 5))
    met = np.zeros((9, 8), bool)
    for row in (0, 5):
        for column in (0, 5):
            met[row : row + 2, column : column + 2] = True
    np.testing.assert_array_equal(dx != 0, np.broadcast_to(met, dx.shape))
