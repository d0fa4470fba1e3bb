"""The gradients of filters and bias, for any number of channels and filters, against products pixel by pixel."""

import itertools

import numpy as np
import pytest
from hypothesis import strategies as st

from backend import asarray, asnumpy
from kernels import convolution_weight_native
from kernels.convolution import convolution_backward_weight
from kernels.core import native
from kernels.core.layout import as_nchw
from kernels.core.window import Window
from tests.conftest import require_c_kernels
from tests.support import oracles
from tests.support.checks import (
    DTYPES,
    assert_close,
    assert_same,
    for_all,
    frozen,
    laid_out,
    normal,
    thread_limit,
    whole,
)
from tests.support.geometries import cases, named


def oracle(x, dy, weight_shape, geometry, groups):
    """dW and db in float64: of every pixel that a tap meets, the products of its channels and the window's filters."""
    x, dy, dw = np.float64(asnumpy(x)), np.float64(asnumpy(dy)), np.zeros(weight_shape)
    filters, own = weight_shape[0] // groups, weight_shape[1]
    for oh, ow, i, j, row, column in oracles.pixels(geometry, x.shape[2:]):
        for group in range(groups):
            of_group = slice(group * filters, (group + 1) * filters)
            pixel = x[:, group * own : (group + 1) * own, row, column]
            dw[of_group, :, i, j] += dy[:, of_group, oh, ow].T @ pixel
    return dw, dy.sum(axis=(0, 2, 3))


def gradients(x, dy, weight_shape, window, groups=1):
    db = asarray(np.full(weight_shape[0], np.nan, x.dtype))
    with frozen(x, dy):
        dw = convolution_backward_weight(x, dy, weight_shape, window, groups, bias_out=db)
    return dw, db


@st.composite
def problems(draw):
    groups, own = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 9))
    filters = draw(st.one_of(st.integers(1, 70), st.sampled_from([15, 16, 17, 32, 33, 64, 65])))
    case = draw(cases(channels=st.just(groups * own), ceil=True))
    return case, groups, (groups * filters, own, *case.geometry.kernel)


def check_exactly(case, groups, weight_shape):
    x = laid_out(whole(case.shape, case.dtype, case.seed), case.layout)
    dy = laid_out(whole((case.shape[0], weight_shape[0], *case.output), case.dtype, case.seed + 1), case.layout)
    dw, db = gradients(x, dy, weight_shape, case.window, groups)
    expected_dw, expected_db = oracle(x, dy, weight_shape, case.geometry, groups)
    assert_same(dw, expected_dw, case.dtype)
    assert_same(db, expected_db, case.dtype)


def test_any_number_of_channels_and_filters(device):
    for_all(device, problems(), cpu=200)(lambda problem: check_exactly(*problem))


@pytest.mark.parametrize("filters", [*range(1, 36), 47, 48, 49, 63, 64, 65, 70, 80, 81, 129])
def test_every_number_of_filters(device, filters):
    for channels in (1, 7):
        check_exactly(named((2, channels, 4, 5), Window(3, padding=1)), 1, (filters, channels, 3, 3))


@pytest.mark.parametrize("channels", [*range(1, 28), 64, 71])
def test_every_number_of_channels(device, channels):
    for filters in (5, 20, 64):
        check_exactly(named((2, channels, 3, 4), Window(2, padding=(0, 1, 1, 0))), 1, (filters, channels, 2, 2))


@pytest.mark.parametrize(
    ("shape", "filters", "window", "groups"),
    [
        ((3, 3, 40, 40), 16, Window(7, 2, 3), 1),  # bands of a few rows of an image
        ((150, 2, 1, 1), 4, Window(1), 1),  # images of one pixel, more than a band's rows
        ((150, 1, 2, 2), 4, Window(2, padding=1), 1),
        ((2, 2, 3, 300), 5, Window(3, padding=1), 1),  # a row of more windows than a band
        ((2, 2, 2, 2), 3, Window(2, padding=9), 1),  # mostly padding
        ((2, 6, 2, 2), 3, Window(3, 3, 9, 4), 1),
        ((2, 8, 5, 5), 32, Window(3, padding=1), 4),
        ((2, 12, 6, 6), 12, Window(3, padding=1), 6),
        ((1, 1, 30, 30), 2, Window(30), 1),  # one window
        ((0, 3, 4, 4), 5, Window(3), 1),
        ((0, 4, 4, 4), 70, Window(3, padding=1), 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_named_geometries(device, dtype, shape, filters, window, groups):
    weight_shape = (filters, shape[1] // groups, *window.kernel)
    case = named(shape, window, dtype)
    x = asarray(np.random.default_rng(0).integers(-1, 2, shape).astype(dtype))
    dy = whole((shape[0], filters, *case.output), dtype, 1, most=1)
    dw, db = gradients(x, dy, weight_shape, window, groups)
    expected_dw, expected_db = oracle(x, dy, weight_shape, case.geometry, groups)
    assert_same(dw, expected_dw, dtype)
    assert_same(db, expected_db, dtype)


SEVERAL_PARTS = [
    ((9, 7, 32, 32), 70, Window(3, padding=1), 1),
    ((40, 1, 28, 28), 20, Window(5), 1),
    ((40, 3, 20, 20), 33, Window(3, 1, 1, 2), 1),
    ((40, 24, 24, 24), 24, Window(3, 2, 1), 3),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "filters", "window", "groups"), SEVERAL_PARTS, ids=str)
def test_threads_change_no_bit(device, dtype, shape, filters, window, groups):
    geometry = window.over(shape[2:])
    assert convolution_weight_native.plan(shape[0], geometry, shape[1], filters, groups, 4, "v4").parts > 3
    x, dy = normal(shape, dtype), normal((shape[0], filters, *geometry.output), dtype, 1)
    first = None
    for count in (1, 2, 3, 5):
        with thread_limit(count):
            found = gradients(x, dy, (filters, shape[1] // groups, *window.kernel), window, groups)
        first = first or found
        for one, other in zip(first, found, strict=True):
            assert_same(other, one)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "filters", "window", "groups"), SEVERAL_PARTS, ids=str)
def test_rounding_is_that_of_a_sum(device, dtype, shape, filters, window, groups):
    if device.kind == "cuda":
        shape = (2, *shape[1:])
    case, weight_shape = named(shape, window, dtype), (filters, shape[1] // groups, *window.kernel)
    x, dy = normal(shape, dtype), normal((shape[0], filters, *case.output), dtype, 1)
    expected = oracle(x, dy, weight_shape, case.geometry, groups)
    sizes = oracle(abs(asnumpy(x)), abs(asnumpy(dy)), weight_shape, case.geometry, groups)
    terms = shape[0] * case.output[0] * case.output[1]
    for found, right, size in zip(gradients(x, dy, weight_shape, window, groups), expected, sizes, strict=True):
        assert_close(found, right, dtype, terms=terms, magnitude=size)


@pytest.mark.parametrize("filters", [1, 5, 15, 17, 40])
def test_what_lies_behind_the_arrays_is_not_read(device, filters):
    """Vectors are wider than the last pixel's filters: what follows them in memory must not be taken for them."""
    memory = asarray(np.full(2 * 3 * 4 * filters + 100, np.nan, "float32"))
    dy = as_nchw(memory[: 2 * 3 * 4 * filters].reshape(2, 3, 4, filters))
    dy[...] = whole((2, filters, 3, 4), seed=1)
    x = whole((2, 2, 5, 6))
    dw, db = gradients(x, dy, (filters, 2, 3, 3), Window(3))
    case = named(x.shape, Window(3))
    for found, right in zip((dw, db), oracle(x, dy, (filters, 2, 3, 3), case.geometry, 1), strict=True):
        assert_same(found, right, "float32")


def test_float16_is_summed_in_float32(device):
    """400 products of 10 000 each, half of them negative, and a last one: in float16 they overflow."""
    x, dy = np.full((1, 8, 20, 20), 100, "float16"), np.full((1, 3, 20, 20), 100, "float16")
    dy[:, :, 10:] = -100
    dy[:, :, 0, 0] += 1
    dw, db = gradients(asarray(x), asarray(dy), (3, 8, 1, 1), Window(1))
    assert (asnumpy(dw) == 100).all()
    assert (asnumpy(db) == 1).all()


@pytest.mark.parametrize("on", [False, True], ids=["numpy", "native"])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("dtype", "given"), list(itertools.permutations(DTYPES, 2)))
def test_gradients_are_written_in_the_dtype_of_the_arrays_given(on, groups, dtype, given):
    """Sums beyond float16 are not rounded to it on their way to float32."""
    if on:
        require_c_kernels()
    x, dy = np.full((1, 4, 9, 9), 100, dtype), np.full((1, 8, 9, 9), 10, dtype)
    out, db = np.zeros((8, 4 // groups, 1, 1), given), np.zeros(8, given)
    with native.enabled(on), np.errstate(over="ignore"):
        convolution_backward_weight(x, dy, out.shape, Window(1), groups, out, db)
        expected = np.float64(81_000).astype(given)
    assert (out == expected).all()
    assert (db == 810).all()


def test_a_nan_stays_with_its_filter_and_its_channel(device):
    x, dy = whole((2, 9, 5, 5)), whole((2, 20, 5, 5), seed=1)
    x[1, 4, 2, 2] = np.nan
    dw, db = (asnumpy(found) for found in gradients(x, dy, (20, 9, 3, 3), Window(3, padding=1)))
    np.testing.assert_array_equal(np.isnan(dw).any(axis=(0, 2, 3)), np.arange(9) == 4)
    assert not np.isnan(db).any()
    x[1, 4, 2, 2], dy[0, 17, 4, 4] = 0, np.nan
    dw, db = (asnumpy(found) for found in gradients(x, dy, (20, 9, 3, 3), Window(3, padding=1)))
    np.testing.assert_array_equal(np.isnan(dw).any(axis=(1, 2, 3)), np.arange(20) == 17)
    np.testing.assert_array_equal(np.isnan(db), np.arange(20) == 17)


@pytest.mark.parametrize("level", ["v3", "v4"])
def test_the_cut_into_parts_goes_by_shapes_and_keeps_partial_sums_small(level):
    geometry = Window(3, padding=1).over((14, 14))
    for images, channels, filters in ((1, 3, 5), (256, 64, 64), (256, 512, 512), (4, 2048, 2048)):
        cut = convolution_weight_native.plan(images, geometry, channels, filters, 1, 4, level)
        assert cut.parts == 1 or cut.parts * channels * 9 * cut.units * 16 * 4 <= 16 << 20
        assert 1 <= cut.parts <= 16
        assert cut.blocks * 64 >= filters
