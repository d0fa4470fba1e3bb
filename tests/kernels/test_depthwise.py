"""Depthwise convolution and its gradients, of any number of channels, against sums pixel by pixel in float64."""

import numpy as np
import pytest
from hypothesis import strategies as st

from backend import asarray, asnumpy
from kernels.convolution import convolution, convolution_backward_input, convolution_backward_weight
from kernels.core.layout import as_nchw
from kernels.core.window import Window
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


def oracle(x, weight, bias, dy, geometry):
    """y, dx, dW and db in float64; filter f sees channel f // M."""
    x, weight, bias, dy = (np.float64(asnumpy(a)) for a in (x, weight, bias, dy))
    y, dx, dw = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(weight.shape)
    multiplier = len(weight) // x.shape[1]
    for oh, ow, i, j, row, column in oracles.pixels(geometry, x.shape[2:]):
        pixel = np.repeat(x[:, :, row, column], multiplier, axis=1)
        y[:, :, oh, ow] += pixel * weight[:, 0, i, j]
        dx[:, :, row, column] += (dy[:, :, oh, ow] * weight[:, 0, i, j]).reshape(*x.shape[:2], multiplier).sum(axis=2)
        dw[:, 0, i, j] += (pixel * dy[:, :, oh, ow]).sum(axis=0)
    return y + bias[:, None, None], dx, dw, dy.sum(axis=(0, 2, 3))


def compute(x, weight, bias, dy, window):
    groups, db = x.shape[1], asarray(np.full(len(weight), np.nan, x.dtype))
    with frozen(x, weight, bias, dy):
        y = convolution(x, weight, bias, window, groups)
        dx = convolution_backward_input(dy, weight, x.shape, window, groups)
        dw = convolution_backward_weight(x, dy, weight.shape, window, groups, bias_out=db)
    return y, dx, dw, db


def arrays(case, multiplier, make=whole):
    fn, dtype = case.shape[1] * multiplier, case.dtype
    x = laid_out(make(case.shape, dtype, case.seed), case.layout)
    weight = laid_out(make((fn, 1, *case.geometry.kernel), dtype, case.seed + 1), case.layout)
    dy = laid_out(make((case.shape[0], fn, *case.output), dtype, case.seed + 3), case.layout)
    return x, weight, make((fn,), dtype, case.seed + 2), dy


def check_exactly(case, multiplier):
    given = arrays(case, multiplier)
    for found, right in zip(compute(*given, case.window), oracle(*given, case.geometry), strict=True):
        assert_same(found, right, case.dtype)


@st.composite
def problems(draw):
    channels = draw(st.one_of(st.integers(2, 9), st.sampled_from([15, 16, 17, 32, 33, 64, 70])))
    return draw(cases(channels=st.just(channels), ceil=True)), draw(st.sampled_from([1, 1, 1, 2, 3]))


def test_every_geometry(device):
    for_all(device, problems(), cpu=150)(lambda problem: check_exactly(*problem))


@pytest.mark.parametrize("channels", [*range(2, 36), 64, 65, 80])
def test_every_number_of_channels(device, channels):
    check_exactly(named((2, channels, 4, 5), Window(3, padding=1)), 1)
    check_exactly(named((1, channels, 5, 4), Window(2, 2, (0, 1))), 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 20, 9, 9), Window(3, 2, 1)),
        ((2, 20, 9, 9), Window(2, 4)),  # pixels that no window contains
        ((2, 20, 7, 7), Window(3, 2, 3, 2)),
        ((2, 5, 7, 7), Window((3, 2), (2, 3), (2, 1), (3, 2))),  # strides and dilations without a common divisor
        ((2, 5, 2, 2), Window(2, padding=5)),
        ((2, 5, 1, 1), Window(3, padding=1)),
        ((1, 17, 12, 12), Window(12)),
        ((0, 5, 4, 4), Window(3, padding=1)),
    ],
    ids=str,
)
def test_named_geometries(device, dtype, shape, window):
    for multiplier in (1, 2):
        check_exactly(named(shape, window, dtype), multiplier)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("multiplier", [1, 3])
def test_relu_of_a_convolution(device, dtype, multiplier):
    case = named((2, 20, 5, 5), Window(3, padding=1), dtype)
    x, weight, bias, _ = arrays(case, multiplier, normal)
    x[0, 3, 2, 2] = np.nan
    expected = asnumpy(convolution(x, weight, bias, case.window, 20))
    for no_bias in (None, bias):
        y, positive = convolution(x, weight, no_bias, case.window, 20, relu=True)
        expected = asnumpy(convolution(x, weight, no_bias, case.window, 20))
        np.testing.assert_array_equal(asnumpy(positive), expected > 0)
        assert_same(y, np.where(expected <= 0, 0, expected).astype(dtype))


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_and_threads(device, dtype, multiplier):
    """Several parts of the weight gradient, each with its sums: bits are the same for any number of threads."""
    case = named((2 if device.kind == "cuda" else 4, 40, 32, 32), Window(3, padding=1), dtype)
    given = arrays(case, multiplier, normal)
    expected = oracle(*given, case.geometry)
    sizes = oracle(*(abs(asnumpy(a)) for a in given), case.geometry)
    first = None
    for count in (1, 2, 3, 5):
        with thread_limit(count):
            found = compute(*given, case.window)
        first = first or found
        for one, other in zip(first, found, strict=True):
            assert_same(other, one)
    terms = 10, 9 * multiplier, 4 * 1024, 4 * 1024
    for each, right, size, count in zip(first, expected, sizes, terms, strict=True):
        assert_close(each, right, dtype, terms=count, magnitude=size)


@pytest.mark.parametrize("channels", [3, 15, 17, 40])
def test_what_lies_behind_the_arrays_is_not_read(device, channels):
    def with_nan_behind(shape, seed):
        n, c, h, w = shape
        memory = asarray(np.full(n * c * h * w + 100, np.nan, "float32"))
        view = as_nchw(memory[:-100].reshape(n, h, w, c))
        view[...] = whole(shape, seed=seed)
        return view

    case = named((2, channels, 4, 5), Window(3, padding=1))
    x, dy = with_nan_behind(case.shape, 0), with_nan_behind(case.shape, 1)
    weight, bias = whole((channels, 1, 3, 3), seed=2), whole((channels,), seed=3)
    expected = oracle(x, weight, bias, dy, case.geometry)
    for found, right in zip(compute(x, weight, bias, dy, case.window), expected, strict=True):
        assert_same(found, right, "float32")


def test_a_nan_stays_in_its_channel(device):
    case = named((1, 20, 6, 6), Window(3, padding=1))
    x, weight, bias, dy = arrays(case, 1)
    x[0, 18, 5, 5] = np.nan
    y, _, dw, _ = (asnumpy(found) for found in compute(x, weight, bias, dy, case.window))
    rows, columns = np.nonzero(np.isnan(y[0, 18]))
    assert rows.min() == columns.min() == 4
    assert not np.isnan(np.delete(y, 18, axis=1)).any()
    assert not np.isnan(np.delete(dw, 18, axis=0)).any()
