"""Winograd's convolution against loops over every product, and against the direct one."""

import numpy as np
import pytest

import backend
from backend import asnumpy
from kernels import convolution as direct
from kernels import winograd
from kernels.core.window import Window
from tests.support import oracles
from tests.support.checks import (
    DTYPES,
    LAYOUTS,
    assert_channels_last,
    assert_same,
    assert_separate,
    check_gradient,
    column_bytes,
    frozen,
    laid_out,
    normal,
    thread_limit,
)
from tests.support.oracles import Geometry

SHAPES = [
    ((2, 3, 8, 8), 4, 1),  # tiles fit
    ((2, 3, 9, 6), 5, 1),  # and hang over
    ((1, 1, 1, 1), 2, 1),
    ((3, 2, 3, 3), 3, 0),  # a single output
    ((2, 4, 5, 12), 1, (1, 0)),
    ((1, 2, 6, 7), 2, (0, 1, 2, 1)),
    ((2, 2, 4, 4), 3, 3),  # windows that see nothing but padding
    ((2, 3, 7, 5), 2, "same"),
    ((1, 17, 5, 6), 33, 1),  # a vector of channels, and a part of one
    ((0, 3, 5, 5), 2, 1),
]
# Roundings of the dtype of sums, relative to the largest result: the transforms' numbers reach 100 (5² and 24/6).
TOLERANCE = {"float16": 2e-3, "float32": 5e-5, "float64": 1e-13}


def arrays(shape, filters, pad, dtype, layout="channels_last"):
    window = Window(3, 1, pad)
    x = laid_out(normal(shape, dtype), layout)
    weight, bias = normal((filters, shape[1], 3, 3), dtype, 1), normal((filters,), dtype, 2)
    dy = laid_out(normal((shape[0], filters, *window.over(shape[2:]).output), dtype, 3), layout)
    return window, x, weight, bias, dy


def assert_near(actual, expected, dtype):
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    if expected.size:
        error = np.abs(asnumpy(actual).astype("float64") - expected).max()
        assert error <= TOLERANCE[dtype] * np.abs(expected).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "filters", "pad"), SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_against_plain_loops(device, shape, filters, pad, dtype, layout):
    window, x, weight, bias, dy = arrays(shape, filters, pad, dtype, layout)
    geometry = Geometry((3, 3), pads=window.over(shape[2:]).pads)
    sums = backend.xp.empty_like(bias)
    with frozen(x, weight, bias, dy):
        y = winograd.convolution(x, weight, bias, window)
        dx = winograd.convolution_backward_input(dy, weight, shape, window)
        dweight = winograd.convolution_backward_weight(x, dy, weight.shape, window, bias_out=sums)
    x_, weight_, bias_, dy_ = (asnumpy(array).astype("float64") for array in (x, weight, bias, dy))
    assert_near(y, oracles.convolution(x_, weight_, bias_, geometry), dtype)
    assert_near(dx, oracles.convolution_backward_input(dy_, weight_, shape, geometry), dtype)
    assert_near(dweight, oracles.convolution_backward_weight(x_, dy_, weight.shape, geometry), dtype)
    assert_near(sums, dy_.sum(axis=(0, 2, 3)), dtype)
    assert_channels_last(y, dx)
    assert_separate((y, dx, dweight), [x, weight, dy])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_relu_behind_it(device, dtype):
    window, x, weight, bias, _ = arrays((2, 3, 9, 6), 5, 1, dtype)
    plain = winograd.convolution(x, weight, bias, window)
    y, positive = winograd.convolution(x, weight, bias, window, relu=True)
    assert_same(y, np.maximum(asnumpy(plain), 0))
    assert_same(positive, asnumpy(plain) > 0)


def test_gradients_are_those_of_the_output(device):
    window, x, weight, bias, dy = arrays((2, 3, 6, 5), 4, 1, "float64")
    dx = winograd.convolution_backward_input(dy, weight, x.shape, window)
    db = backend.xp.empty_like(bias)
    dweight = winograd.convolution_backward_weight(x, dy, weight.shape, window, bias_out=db)
    check_gradient(
        lambda x, weight, bias: (winograd.convolution(x, weight, bias, window) * dy).sum(),
        [x, weight, bias],
        [dx, dweight, db],
    )


def all_three(window, x, weight, bias, dy):
    return [
        winograd.convolution(x, weight, bias, window),
        winograd.convolution_backward_input(dy, weight, x.shape, window),
        winograd.convolution_backward_weight(x, dy, weight.shape, window),
    ]


def test_parts_and_bands(device, monkeypatch):
    """Parts of a single row of tiles give what the whole batch gives, up to the order of the weight's sums."""
    given = arrays((3, 4, 13, 10), 6, 1, "float64")
    expected = all_three(*given)
    monkeypatch.setattr(winograd, "_LEAST_TILES", 1)
    with column_bytes(1):
        for one, other in zip(expected, all_three(*given), strict=True):
            np.testing.assert_allclose(asnumpy(other), asnumpy(one), rtol=0, atol=1e-12)


def test_threads_change_no_bit(device, monkeypatch):
    given = arrays((5, 4, 13, 10), 6, 1, "float32")
    monkeypatch.setattr(winograd, "_LEAST_TILES", 1)
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 1)
    with column_bytes(20_000):
        results = []
        for count in (1, 2, 3, 5):
            with thread_limit(count):
                results.append(all_three(*given))
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            assert_same(same, one)


def test_a_part_is_worth_its_filters():
    """All transformed filters are read for each part: it has 64 tiles at least, where there are as many."""
    parts = winograd._parts((512, 4, 4, 512), 512, np.dtype("float32"), np)
    assert [part.images.stop - part.images.start for part in parts] == [64] * 8


def test_the_error_is_what_the_docstring_says():
    """1e-5 of the largest result for 64 channels in float32, and more than the direct sum's."""
    window, x, weight, bias, _ = arrays((2, 64, 16, 16), 64, 1, "float32")
    exact = direct.convolution(*(array.astype("float64") for array in (x, weight, bias)), window)
    results = [module.convolution(x, weight, bias, window) for module in (direct, winograd)]
    errors = [np.abs(result - exact).max() / np.abs(exact).max() for result in results]
    assert errors[0] < errors[1] < 2e-5


@pytest.mark.parametrize(
    ("window", "groups"),
    [(Window(5), 1), (Window(3, 2), 1), (Window(3, 1, 2, 2), 1), (Window(3), 2), (Window((3, 1)), 1)],
    ids=str,
)
def test_other_geometries_are_refused(window, groups):
    with pytest.raises(ValueError, match="winograd needs 3x3 filters, stride 1, no dilation and one group"):
        winograd.check_window(window, groups)
