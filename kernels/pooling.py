"""Average pooling, of windows and of whole images, over channels-last memory."""

from __future__ import annotations

import numpy

from backend import profiling, require_active, workspace
from backend.checks import flag, sizes
from backend.types import Array
from kernels.core.checks import check_dtype, check_images, check_pooling, check_pooling_gradient
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.geometry import Geometry
from kernels.core.launch import Kernel
from kernels.core.layout import as_nchw, to_nhwc
from kernels.core.native import Function
from kernels.core.window import Window
from kernels.sums import axis_means

_AVERAGE = Kernel("pooling.cu", "average_pool")
_AVERAGE_BACKWARD = Kernel("pooling.cu", "average_pool_backward")
_AVERAGE_C = Function("pooling.c", "average_pool")
_AVERAGE_BACKWARD_C = Function("pooling.c", "average_pool_backward")


@profiling.operation
def average_pool(x: Array, window: Window, count_padding: bool = False) -> Array:
    """Compute the mean of every window.

    Args:
        x: (N, C, H, W).
        window: kernel, stride, padding, dilation, rounding.
        count_padding: True to count padding as zeros in the mean, False to count pixels only. Pixels that
            ``rounding="ceil"`` adds beyond the padding never count.

    Returns:
        (N, C, OH, OW), channels-last memory, dtype of ``x`` (float16 is summed in float32).

    Raises:
        TypeError: ``x`` is not of float16, float32 or float64.
        ValueError: ``x`` is not 4-D, or a window holds only padding.

    Examples:
        >>> from backend import xp
        >>> from kernels.core.window import Window
        >>> from kernels.pooling import average_pool
        >>> average_pool(xp.arange(16.0).reshape(1, 1, 4, 4), Window(2, stride=2))[0, 0]
        array([[ 2.5,  4.5],
               [10.5, 12.5]])
    """
    geometry = check_pooling("average pooling", x, window)
    count_padding = flag("count_padding", count_padding)
    y = workspace.empty((len(x), *geometry.output, x.shape[1]), x.dtype)
    average = implementation(x, _average_pool_numpy, _average_pool_cuda, _average_pool_native)
    average(to_nhwc(x), y, geometry, count_padding)
    return as_nchw(y)


def _average_pool_numpy(source: Array, y: Array, geometry: Geometry, count_padding: bool) -> None:
    weights = geometry.reciprocal_counts(count_padding, acc_dtype(y.dtype))
    total = numpy.zeros(y.shape, weights.dtype)
    for tap in geometry.taps:
        total[:, tap.out_rows, tap.out_columns] += source[:, tap.in_rows, tap.in_columns]
    numpy.multiply(total, weights, out=y, casting="same_kind")


def _average_pool_native(source: Array, y: Array, geometry: Geometry, count_padding: bool) -> None:
    n, oh, _, c = y.shape
    weights = geometry.reciprocal_counts(count_padding, acc_dtype(y.dtype))
    given = source, weights, y, geometry.block(c), n
    _AVERAGE_C.share(y.dtype, n * oh, source.nbytes // max(n * oh, 1), *given)


def _average_pool_cuda(source: Array, y: Array, geometry: Geometry, count_padding: bool) -> None:
    _AVERAGE(y.size, source, y, y.size, geometry.struct(y.shape[3]), *geometry.counted(count_padding))


@profiling.operation
def average_pool_backward(
    dy: Array, input_shape: tuple[int, int, int, int], window: Window, count_padding: bool = False
) -> Array:
    """Return the gradient of ``average_pool``: each window's, divided evenly among the pixels that count.

    Args:
        dy: (N, C, OH, OW).
        input_shape: (N, C, H, W) of ``x``.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``dy``.

    Raises:
        TypeError: ``dy`` is not of float16, float32 or float64.
        ValueError: the shape of ``dy`` is not that of the output.
    """
    geometry = check_pooling_gradient(dy, input_shape, window)
    count_padding = flag("count_padding", count_padding)
    n, c, h, w = input_shape
    dx = workspace.empty((n, h, w, c), dy.dtype)
    backward = implementation(
        dy, _average_pool_backward_numpy, _average_pool_backward_cuda, _average_pool_backward_native
    )
    backward(to_nhwc(dy), dx, geometry, count_padding)
    return as_nchw(dx)


def _average_pool_backward_numpy(gradient: Array, dx: Array, geometry: Geometry, count_padding: bool) -> None:
    weights = geometry.reciprocal_counts(count_padding, acc_dtype(dx.dtype))
    shares, total = gradient * weights, numpy.zeros(dx.shape, weights.dtype)
    for tap in geometry.taps:
        total[:, tap.in_rows, tap.in_columns] += shares[:, tap.out_rows, tap.out_columns]
    dx[...] = total


def _average_pool_backward_native(gradient: Array, dx: Array, geometry: Geometry, count_padding: bool) -> None:
    n, h, _, c = dx.shape
    weights = geometry.reciprocal_counts(count_padding, acc_dtype(dx.dtype))
    given = gradient, weights, dx, geometry.block(c), n
    _AVERAGE_BACKWARD_C.share(dx.dtype, n * h, dx.nbytes // max(n * h, 1), *given)


def _average_pool_backward_cuda(gradient: Array, dx: Array, geometry: Geometry, count_padding: bool) -> None:
    _AVERAGE_BACKWARD(dx.size, gradient, dx, dx.size, geometry.struct(dx.shape[3]), *geometry.counted(count_padding))


@profiling.operation
def global_average_pool(x: Array) -> Array:
    """Return the mean of each channel's plane (Lin, Chen and Yan, "Network in network", 2014).

    Args:
        x: (N, C, H, W), of at least one pixel.

    Returns:
        (N, C), dtype of ``x`` (float16 is summed in float32).

    Raises:
        TypeError: ``x`` is not of float16, float32 or float64.
        ValueError: ``x`` is not 4-D, or its images have no pixels.
    """
    check_images("global average pooling", x)
    check_dtype("global average pooling", x)
    n, c, h, w = x.shape
    if not h * w:
        raise ValueError(f"global average pooling needs images of at least one pixel, got shape {x.shape}")
    return axis_means(to_nhwc(x).reshape(n, h * w, c), 1, dtype=x.dtype)


@profiling.operation
def global_average_pool_backward(dy: Array, input_shape: tuple[int, int, int, int]) -> Array:
    """Return the gradient of ``global_average_pool``: each pixel gets dy / (H·W).

    Args:
        dy: (N, C).
        input_shape: (N, C, H, W) of ``x``.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``dy``.

    Raises:
        TypeError: ``dy`` is not of float16, float32 or float64.
        ValueError: the shape of ``dy`` is not that of the output, or the images have no pixels.
    """
    require_active(dy, "dy")
    check_dtype("global average pooling", dy)
    n, c, h, w = sizes("input_shape", input_shape, 0, 4)
    if dy.shape != (n, c) or not h * w:
        raise ValueError(f"dy must be (N, C) of images {tuple(input_shape)} of at least one pixel, got {dy.shape}")
    dx = workspace.empty((n, h, w, c), dy.dtype)
    dx[...] = (dy / (h * w))[:, None, None]
    return as_nchw(dx)
