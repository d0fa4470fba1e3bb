"""Channels-last memory behind NCHW shapes."""

import numpy as np
import pytest

import backend
from backend import xp
from kernels.core import layout
from kernels.core.window import Window
from kernels.im2col import im2col
from kernels.max_pooling import max_pool
from tests.support.checks import assert_channels_last, assert_same, assert_separate, frozen, normal, variants, whole


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool"])
def test_storage_holds_the_pixels_channel_by_channel(device, dtype):
    x = whole((2, 3, 4, 5), dtype)
    for name, view in variants(x):
        with frozen(view):
            nhwc = layout.to_nhwc(view)
        assert nhwc.flags.c_contiguous, name
        assert_same(nhwc, xp.ascontiguousarray(x.transpose(0, 2, 3, 1)))


def test_storage_is_a_view_only_where_the_memory_is_right(device):
    for name, view in variants(normal((2, 3, 4, 5))):
        shared = xp.shares_memory(layout.to_nhwc(view), view)
        assert shared == (name == "channels_last"), name


def test_storage_of_a_large_array_is_right(device):
    x = normal((8, 16, 32, 32))  # beyond the size from which buffers are recycled
    first, second = layout.to_nhwc(x), layout.to_nhwc(x + 1)
    assert_same(first, xp.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    assert_same(second, first + 1)


def test_images_is_the_inverse_view(device):
    nhwc = normal((2, 4, 5, 3))
    x = layout.as_nchw(nhwc)
    assert x.shape == (2, 3, 4, 5)
    assert xp.shares_memory(x, nhwc)
    assert_same(layout.to_nhwc(x), nhwc)
    assert xp.shares_memory(layout.to_nhwc(x), nhwc)


def test_channels_last_keeps_values_and_memory_that_is_right(device):
    x = normal((2, 3, 4, 5))
    for name, view in variants(x):
        with frozen(view):
            result = layout.channels_last(view)
        assert_channels_last(result)
        assert_same(result, x)
        assert xp.shares_memory(result, view) == (name == "channels_last")


def test_channels_are_joined_and_parted(device):
    a, b = normal((2, 3, 4, 5)), normal((2, 1, 4, 5))
    for _, view in variants(a):
        with frozen(view, b):
            result = layout.joined(view, b)
        assert_channels_last(result)
        assert_same(result, xp.concatenate([a, b], axis=1))
        first, rest = layout.parted(result, 3)
        assert_same(first, a)
        assert_same(rest, b)
        assert xp.shares_memory(first, result)
    assert layout.joined(xp.zeros((2, 0)), xp.ones((2, 3), "float32")).dtype == "float64"
    assert layout.joined(normal((0, 3, 4, 5)), normal((0, 1, 4, 5))).shape == (0, 4, 4, 5)


def test_copy_channels_last_is_always_a_copy(device):
    x = normal((2, 3, 4, 5))
    for _, view in variants(x):
        with frozen(view):
            result = layout.copy_channels_last(view)
        assert_channels_last(result)
        assert_same(result, x)
        assert_separate(result, [view])


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (1, 1, 1, 1)])
def test_degenerate_shapes(device, shape):
    x = whole(shape)
    assert_same(layout.channels_last(x), x)
    assert layout.is_channels_last(layout.channels_last(x))


def test_is_channels_last_tells_the_layouts_apart(device):
    for name, view in variants(normal((2, 3, 4, 5))):
        assert layout.is_channels_last(view) is (name == "channels_last"), name


def test_elementwise_works_on_the_memory_and_returns_its_view(device):
    twice = layout.elementwise(lambda x: x * 2)
    for _, view in variants(whole((2, 3, 4, 5))):
        with frozen(view):
            y = twice(view)
        assert_channels_last(y)
        assert_same(y, view * 2)
        assert_separate(y, [view])


def test_elementwise_of_two_layouts_and_two_results(device):
    def function(a, b, factor=1):
        """Doc."""
        return a + factor * b, a - b

    both = layout.elementwise(function)
    a, b = whole((2, 3, 4, 5)), whole((2, 3, 4, 5), seed=1)
    for (_, left), (_, right) in zip(variants(a), reversed(variants(b)), strict=True):
        total, difference = both(left, right, factor=3)
        assert_channels_last(total, difference)
        assert_same(total, a + 3 * b)
        assert_same(difference, a - b)
    assert (both.__name__, both.__doc__) == ("function", "Doc.")


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 4), (2, 1, 3, 1, 2)])
def test_elementwise_of_other_dimensions_is_the_function(device, shape):
    x = whole(shape)
    assert_same(layout.elementwise(lambda x: x + 1)(x), x + 1)


def test_elementwise_refuses_two_shapes(device):
    def plus(a, b):
        return a + b

    with pytest.raises(ValueError, match=r"plus needs one shape, got \(2, 3\) and \(3,\)"):
        layout.elementwise(plus)(whole((2, 3)), whole((3,)))


@pytest.mark.gpu
@pytest.mark.parametrize("layout_name", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("active", "given"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_an_array_that_is_not_on_the_active_device_is_refused(active, given, layout_name):
    """What is forgotten most: to move the data. The error has to say where it lies and where it should."""
    with backend.use(given):
        x = dict(variants(whole((2, 3, 4, 5))))[layout_name]
    with backend.use(active):
        for operation in (im2col, max_pool):
            with pytest.raises(TypeError, match=r"(?i)numpy.*(cuda|cupy|\.get\(\))|(cuda|cupy).*numpy"):
                operation(x, Window(2))


@pytest.mark.gpu
def test_elementwise_refuses_host_with_device():
    with backend.use("cuda"):
        on_device = whole((1, 2, 3, 4))
    with pytest.raises(TypeError, match=r"numpy.*cupy"):
        layout.elementwise(lambda a, b: a + b)(np.zeros((1, 2, 3, 4), "float32"), on_device)
