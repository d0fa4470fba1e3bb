"""Max pooling over channels-last memory, and the places of the maxima.

The first maximum of a window wins, in the order of its rows and then its columns; the first NaN wins over all (as
in ``np.argmax``); padding never wins: it is not looked at.

Backward needs the place of each winner: its tap, one byte, where a window has at most 256 taps, else its index
row·W + column in its plane.
"""

from __future__ import annotations

import math

import numpy

from backend import profiling, require_arrays, require_same_device, workspace
from backend.types import Array
from kernels.core.checks import check_pooling, check_pooling_gradient
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.geometry import Geometry, Tap
from kernels.core.launch import Kernel
from kernels.core.layout import as_nchw, to_nhwc
from kernels.core.native import Function
from kernels.core.tiling import together
from kernels.core.window import Window

_FORWARD = Kernel("pooling.cu", "max_pool")
_GATHER = Kernel("pooling.cu", "max_pool_backward_gather")
_SCATTER = Kernel("pooling.cu", "max_pool_backward_scatter")
_FORWARD_C = Function("max_pooling.c", "max_pool")
_GATHER_C = Function("max_pooling.c", "max_pool_gather")
_SCATTER_C = Function("max_pooling.c", "max_pool_scatter")

MOST_TAPS_OF_A_BYTE = 256
"""Taps of a window up to which one byte is kept for each winner."""


@profiling.operation
def max_pool(x: Array, window: Window) -> tuple[Array, Array]:
    """Compute the largest pixel of every window, and its place.

    Args:
        x: (N, C, H, W).
        window: kernel, stride, padding, dilation, rounding.

    Returns:
        y (N, C, OH, OW), dtype of ``x``, and argmax (N, C, OH, OW), int32: the winner's index row·W + column in
        its plane. Both have channels-last memory.

    Raises:
        TypeError: ``x`` is not of float16, float32 or float64.
        ValueError: ``x`` is not 4-D, or a window holds only padding.
    """
    return _pool(x, check_pooling("max pooling", x, window), "int32")


@profiling.operation
def max_pool_backward(dy: Array, argmax: Array, input_shape: tuple[int, int, int, int], window: Window) -> Array:
    """Return the gradient of ``max_pool``: each window's goes to its winner.

    Windows are added in tap order; windows that do not overlap pass the bits on.

    Args:
        dy: (N, C, OH, OW).
        argmax: as ``max_pool`` returned it.
        input_shape: (N, C, H, W) of ``x``.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``dy``.

    Raises:
        TypeError: ``dy`` is not of float16, float32 or float64, or ``argmax`` not of int32.
        ValueError: the shape of ``dy`` or of ``argmax`` is not that of the output.
    """
    require_arrays(argmax=argmax)
    if argmax.dtype != "int32":
        raise TypeError(f"argmax must be int32, as max_pool returns it, got {argmax.dtype}")
    return _pool_backward(dy, argmax, input_shape, window)


@profiling.operation
def pool(x: Array, window: Window) -> tuple[Array, Array]:
    """Compute ``max_pool`` with the least that ``pool_backward`` needs in place of argmax: the tap of each winner,
    uint8 (N, C, OH, OW), or argmax where a window has more than 256 taps.
    """
    geometry = check_pooling("max pooling", x, window)
    return _pool(x, geometry, "uint8" if math.prod(geometry.kernel) <= MOST_TAPS_OF_A_BYTE else "int32")


@profiling.operation
def pool_backward(dy: Array, winners: Array, input_shape: tuple[int, int, int, int], window: Window) -> Array:
    """Return the gradient of ``pool``, as ``max_pool_backward`` does, for what ``pool`` returned as ``winners``."""
    return _pool_backward(dy, winners, input_shape, window)


def _pool(x: Array, geometry: Geometry, kind: str) -> tuple[Array, Array]:
    y = workspace.empty((len(x), *geometry.output, x.shape[1]), x.dtype)
    winners = workspace.empty(y.shape, kind)
    implementation(x, _pool_numpy, _pool_cuda, _pool_native)(to_nhwc(x), y, winners, geometry)
    return as_nchw(y), as_nchw(winners)


def _pool_numpy(source: Array, y: Array, winners: Array, geometry: Geometry) -> None:
    y.fill(-numpy.inf)
    for tap in reversed(geometry.taps):  # of equal pixels, and of NaNs, the first is the last to win
        pixels, best = source[:, tap.in_rows, tap.in_columns], y[:, tap.out_rows, tap.out_columns]
        wins = (pixels >= best) | numpy.isnan(pixels)
        numpy.copyto(best, pixels, where=wins)
        numpy.copyto(winners[:, tap.out_rows, tap.out_columns], _place(tap, geometry, winners), where=wins)


def _place(tap: Tap, geometry: Geometry, winners: Array) -> int | Array:
    """Return what ``winners`` has where a tap wins: its number, or the indices of the pixels that it meets."""
    if winners.dtype == "uint8":
        return tap.row * geometry.kernel[1] + tap.column
    h, w = geometry.image
    return numpy.arange(h * w, dtype="int32").reshape(h, w, 1)[tap.in_rows, tap.in_columns]


def _pool_native(source: Array, y: Array, winners: Array, geometry: Geometry) -> None:
    n, oh, _, c = y.shape
    given = source, y, winners.view("uint8"), geometry.block(c), n, winners.itemsize
    _FORWARD_C.share(source.dtype, n * oh, source.nbytes // max(n * oh, 1), *given)


def _pool_cuda(source: Array, y: Array, winners: Array, geometry: Geometry) -> None:
    count, channels = y.size, y.shape[3]
    given = source, y, winners.view("uint8"), count, geometry.struct(channels), winners.itemsize
    _FORWARD(count // together(channels, y.dtype), *given)


def _pool_backward(dy: Array, winners: Array, input_shape: tuple[int, int, int, int], window: Window) -> Array:
    geometry = check_pooling_gradient(dy, input_shape, window)
    require_same_device(dy, winners)
    if winners.shape != dy.shape:
        raise ValueError(f"argmax has shape {winners.shape}, the gradient {dy.shape}: both are the output's")
    n, c, h, w = input_shape
    dx = workspace.empty((n, h, w, c), dy.dtype)
    backward = implementation(dy, _pool_backward_numpy, _pool_backward_cuda, _pool_backward_native)
    backward(to_nhwc(dy), to_nhwc(winners), dx, geometry)
    return as_nchw(dx)


def _pool_backward_numpy(gradient: Array, winners: Array, dx: Array, geometry: Geometry) -> None:
    total = numpy.zeros(dx.shape, acc_dtype(dx.dtype) if geometry.overlaps else dx.dtype)
    for tap in geometry.taps:
        won = winners[:, tap.out_rows, tap.out_columns] == _place(tap, geometry, winners)
        pixels, upstream = total[:, tap.in_rows, tap.in_columns], gradient[:, tap.out_rows, tap.out_columns]
        if geometry.overlaps:
            numpy.add(pixels, upstream, out=pixels, where=won)
        else:
            numpy.copyto(pixels, upstream, where=won)
    dx[...] = total


def _pool_backward_native(gradient: Array, winners: Array, dx: Array, geometry: Geometry) -> None:
    n, h, _, c = dx.shape
    function, rows = (_GATHER_C, h) if geometry.overlaps else (_SCATTER_C, geometry.output[0])
    given = gradient, winners.view("uint8"), dx, geometry.block(c), n, winners.itemsize
    function.share(dx.dtype, n * rows, dx.nbytes // max(n * rows, 1), *given)


def _pool_backward_cuda(gradient: Array, winners: Array, dx: Array, geometry: Geometry) -> None:
    kernel, count = (_GATHER, dx.size) if geometry.overlaps else (_SCATTER, gradient.size)
    threads = count // together(dx.shape[3], dx.dtype)
    kernel(threads, gradient, winners.view("uint8"), dx, count, geometry.struct(dx.shape[3]), winners.itemsize)
