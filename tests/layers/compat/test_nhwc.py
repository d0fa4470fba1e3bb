"""Convolution and pooling of (N, H, W, C): the contract of every layer, and every geometry."""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import asnumpy
from layers.compat.nhwc import Conv2D, Pool2D
from tests.support import oracles
from tests.support.checks import assert_close, assert_same, assert_separate, for_all, frozen, laid_out, normal, whole
from tests.support.geometries import cases
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle, products
from tests.support.oracles import Geometry

WINDOWS = cases(dilations=(1,))
NO_EMPTY_WINDOW = cases(dilations=(1,), no_empty_window=True)


def channels_first(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def channels_last(x):
    return np.asarray(x).transpose(0, 2, 3, 1)


def filters_first(W):
    """(FH, FW, C, FN) → (FN, C, FH, FW)."""
    return np.asarray(W).transpose(3, 2, 0, 1)


# -- what the layers are, for the contract -----------------------------------------------------------------------


def convolution(geometry):
    def forward(p, x):
        function = lambda x, W, b: channels_last(oracles.convolution(channels_first(x), filters_first(W), b, geometry))  # noqa: E731
        return products(function, p["W"][..., 0].size + 1, x, p["W"], p["b"])

    def backward(p, dout, x):
        W, shape = p["W"], channels_first(x).shape

        def dx(dout, W):
            first = oracles.convolution_backward_input(channels_first(dout), filters_first(W), shape, geometry)
            return channels_last(first)

        def dW(x, dout):
            first = channels_first(x), channels_first(dout)
            return oracles.convolution_backward_weight(*first, filters_first(W).shape, geometry).transpose(2, 3, 1, 0)

        pixels = dout[..., 0].size
        return {
            "x": products(dx, W[..., 0, :].size, dout, W),
            "W": products(dW, pixels, x, dout),
            "b": products(lambda dout: dout.sum((0, 1, 2)), pixels, dout),
        }

    return Oracle(forward, backward)


def largest(geometry):
    def backward(p, dout, x):
        _, argmax = oracles.max_pool(channels_first(x), geometry)
        shape = channels_first(x).shape
        spread = lambda dout: channels_last(oracles.max_pool_backward(channels_first(dout), argmax, shape))  # noqa: E731
        return {"x": products(spread, 0, dout, roundings=math.prod(geometry.kernel))}

    return Oracle(lambda p, x: Expected(channels_last(oracles.max_pool(channels_first(x), geometry)[0])), backward)


def mean(geometry, count_padding=False):
    terms = math.prod(geometry.kernel) + 2

    def forward(p, x):
        average = lambda x: channels_last(oracles.average_pool(channels_first(x), geometry, count_padding))  # noqa: E731
        return products(average, terms, x)

    def backward(p, dout, x):
        shape = channels_first(x).shape

        def spread(dout):
            return channels_last(oracles.average_pool_backward(channels_first(dout), shape, geometry, count_padding))

        return {"x": products(spread, terms, dout)}

    return Oracle(forward, backward)


def conv2d(channels, filters, kernel, **options):
    def make(draw):
        layer = Conv2D(channels, filters, kernel, **options)
        layer.W, layer.b = draw(*kernel, channels, filters), draw(filters)
        return layer

    return make


SAME = Geometry((2, 3), (2, 2), (0, 1, 1, 1))  # of 5x6: ⌈5/2⌉ = 3 rows need one more pixel, ⌈6/2⌉ = 3 columns one each
FOUR = Geometry((3, 2), (1, 2), (0, 2, 1, 0))
CASES = [
    LayerCase("Conv2D", conv2d(3, 4, (3, 3), pad=1), (2, 5, 4, 3), convolution(Geometry((3, 3), pads=(1, 1, 1, 1)))),
    LayerCase("Conv2D same", conv2d(2, 3, (2, 3), stride=2, pad="same"), (2, 5, 5, 2), convolution(SAME)),
    LayerCase("Conv2D four", conv2d(1, 2, (3, 2), stride=(1, 2), pad=(0, 2, 1, 0)), (2, 4, 6, 1), convolution(FOUR)),
    LayerCase("Pool2D", lambda draw: Pool2D((2, 2), 2), (2, 4, 4, 3), largest(Geometry((2, 2), (2, 2)))),
    LayerCase("Pool2D same", lambda draw: Pool2D((2, 3), 2, "same"), (2, 5, 5, 2), largest(SAME)),
    LayerCase("Pool2D four", lambda draw: Pool2D((3, 2), (1, 2), (0, 2, 1, 0)), (1, 4, 6, 2), largest(FOUR)),
    LayerCase("Pool2D mean", lambda draw: Pool2D((2, 3), 2, "same", "average"), (2, 5, 5, 2), mean(SAME)),
    LayerCase(
        "Pool2D mean with padding",
        lambda draw: Pool2D((3, 2), (1, 2), (0, 2, 1, 0), "average", count_padding=True),
        (1, 4, 6, 2),
        mean(FOUR, count_padding=True),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    def assert_layout(self, array):
        assert array.flags.c_contiguous


# -- every geometry ------------------------------------------------------------------------------------------------


def options(case):
    return {"stride": case.arguments["stride"], "pad": case.arguments["padding"]}


def given(case, channels, seed):
    """An array of the case's images (or of its output) as (N, H, W, C), in the case's layout."""
    image = case.output if channels else case.shape[2:]
    shape = (case.shape[0], *image, channels or case.shape[1])
    return laid_out(whole(shape, case.dtype, case.seed + seed, most=2), case.layout)


def test_conv_of_every_geometry(device):
    """Over whole numbers, whose sums no order changes: equal to the loops."""

    @for_all(device, WINDOWS, st.integers(1, 3))
    def check(case, filters):
        x, dout = given(case, 0, 1), given(case, filters, 2)
        layer = Conv2D(case.shape[1], filters, case.geometry.kernel, **options(case), dtype=case.dtype)
        layer.W, layer.b = whole(layer.W.shape, case.dtype, case.seed), whole(filters, case.dtype, case.seed + 3)
        with frozen(x, dout, layer.W, layer.b):
            y = layer.forward(x)
            dx = layer.backward(dout)
        assert_separate((y, dx, layer.dW, layer.db), [x, dout, layer.W, layer.b])
        pixels, weight, gradient = (
            channels_first(asnumpy(x)),
            filters_first(asnumpy(layer.W)),
            channels_first(asnumpy(dout)),
        )
        expected = oracles.convolution(pixels, weight, asnumpy(layer.b), case.geometry)
        assert_same(y, channels_last(expected), case.dtype)
        expected = oracles.convolution_backward_input(gradient, weight, pixels.shape, case.geometry)
        assert_same(dx, channels_last(expected), case.dtype)
        expected = oracles.convolution_backward_weight(pixels, gradient, weight.shape, case.geometry)
        assert_same(layer.dW, expected.transpose(2, 3, 1, 0), case.dtype)
        assert_same(layer.db, np.float64(gradient).sum((0, 2, 3)), case.dtype)
        assert layer.output_shape(x.shape[1:]) == y.shape[1:]


def test_max_of_every_geometry(device):
    """Small whole numbers: most windows hold ties; some pixels are NaN or infinite."""

    @for_all(device, NO_EMPTY_WINDOW, st.booleans())
    def check(case, special):
        x, dout = given(case, 0, 1), given(case, case.shape[1], 2)
        if special:
            host, rng = asnumpy(x).copy(), np.random.default_rng(case.seed)
            for value in (np.nan, np.inf, -np.inf):
                host[rng.random(host.shape) < 0.1] = value
            x = laid_out(backend.asarray(host), case.layout)
        layer = Pool2D(case.geometry.kernel, **options(case))
        with frozen(x, dout):
            y = layer.forward(x)
            dx = layer.backward(dout)
        assert_separate((y, dx), [x, dout])
        pixels, gradient = channels_first(asnumpy(x)), channels_first(asnumpy(dout))
        expected, argmax = oracles.max_pool(pixels, case.geometry)
        assert_same(y, channels_last(expected), case.dtype)
        assert_same(dx, channels_last(oracles.max_pool_backward(gradient, argmax, pixels.shape)), case.dtype)


def test_mean_of_every_geometry(device):
    @for_all(device, NO_EMPTY_WINDOW, st.booleans())
    def check(case, count_padding):
        x = laid_out(normal(given(case, 0, 1).shape, case.dtype, case.seed), case.layout)
        dout = laid_out(normal(given(case, case.shape[1], 2).shape, case.dtype, case.seed + 1), case.layout)
        layer = Pool2D(case.geometry.kernel, **options(case), mode="average", count_padding=count_padding)
        with frozen(x, dout):
            y = layer.forward(x)
            dx = layer.backward(dout)
        assert_separate((y, dx), [x, dout])
        shape, terms = channels_first(asnumpy(x)).shape, math.prod(case.geometry.kernel) + 2

        def compare(actual, operation, array, *more):
            first = channels_first(asnumpy(array))
            expected, sizes = (operation(a, *more, case.geometry, count_padding) for a in (first, abs(first)))
            bounds = {"terms": terms, "magnitude": channels_last(sizes), "roundings": 1}
            assert_close(actual, channels_last(expected), case.dtype, **bounds)

        compare(y, oracles.average_pool, x)
        compare(dx, oracles.average_pool_backward, dout, shape)
