"""Max pooling over channels-last memory, and the places of the maxima.

The first maximum of a window wins, in the order of its rows and then its columns; the first NaN wins over all (as
in ``np.argmax``); padding never wins: it is not looked at.

On the CPU a window is searched along its rows first, then among the rows: 2·k comparisons instead of k². Backward needs
the winning tap of each search, one byte each.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy

from backend import array_module, profiling, require_arrays, threads, workspace
from backend.types import Array
from kernels.core.checks import check_pooling, check_pooling_gradient
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.geometry import Geometry, TapRange
from kernels.core.launch import Kernel
from kernels.core.layout import as_nchw, to_nhwc
from kernels.core.tiling import Part, cut
from kernels.core.window import Window
from kernels.masking import apply_mask_numpy

_FORWARD = Kernel("pooling.cu", "max_pool")
_GATHER = Kernel("pooling.cu", "max_pool_backward_gather")
_SCATTER = Kernel("pooling.cu", "max_pool_backward_scatter")

MOST_TAPS_OF_A_BYTE = 256
"""Taps of a window up to which a GPU keeps one byte for each winner."""


class Winners(NamedTuple):
    """The places of the maxima on the CPU: taps, counted from 0, uint8 where there are fewer than 256.

    ``across`` (N, H, OW, C) is the window's column that wins in a row of pixels, ``down`` (N, OH, OW, C) the window's
    row that holds the maximum.
    """

    across: Array
    down: Array


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
    geometry = check_pooling("max pooling", x, window)
    y, winners = implementation(x, _pool_numpy, _pool_cuda)(to_nhwc(x), geometry)
    return y, _argmax(winners, window, x.shape) if isinstance(winners, Winners) else winners


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
        TypeError: ``dy`` is not of float16, float32 or float64.
        ValueError: the shape of ``dy`` is not that of the output.
    """
    check_pooling_gradient(dy, input_shape, window)
    require_arrays(argmax=argmax)
    if argmax.shape != dy.shape:
        raise ValueError(f"argmax has shape {argmax.shape}, the gradient {dy.shape}: both are the output's")
    if array_module(dy, argmax) is numpy:
        return pool_backward(dy, _winners(argmax, window, input_shape), input_shape, window)
    if argmax.dtype != "int32":
        raise TypeError(f"argmax must be int32, as max_pool returns it, got {argmax.dtype}")
    return pool_backward(dy, argmax, input_shape, window)


@profiling.operation
def pool(x: Array, window: Window) -> tuple[Array, Any]:
    """Compute ``max_pool`` with what ``pool_backward`` needs in place of argmax: ``Winners``; on a GPU the tap of each
    winner, uint8 (N, C, OH, OW), or argmax where a window has more than 256 taps.
    """
    geometry = check_pooling("max pooling", x, window)
    return implementation(x, _pool_numpy, _pool_by_taps_cuda)(to_nhwc(x), geometry)


def _pool_numpy(source: Array, geometry: Geometry) -> tuple[Array, Winners]:
    (n, h, w, c), (oh, ow), dtype = source.shape, geometry.output, source.dtype
    y = workspace.empty((n, oh, ow, c), dtype)
    kinds = ["uint8" if taps < 256 else "int32" for taps in geometry.kernel]
    winners = Winners(workspace.empty((n, h, ow, c), kinds[1]), workspace.empty(y.shape, kinds[0]))

    def search(part: Part) -> None:
        images = part.images
        pixels, best = source[images], y[images]
        across, down = winners.across[images].swapaxes(1, 2), winners.down[images]
        of_rows = workspace.empty((len(pixels), h, ow, c), dtype)
        for first_nan_wins in (False, True):
            columns = pixels.swapaxes(1, 2), of_rows.swapaxes(1, 2), across
            _first_maxima(*columns, geometry.columns, first_nan_wins)
            _first_maxima(of_rows, best, down, geometry.rows, first_nan_wins)
            if not best.size or not numpy.isnan(best.max()):  # otherwise comparisons did not see the NaN
                break

    threads.run(search, cut(n, 1, h * w * c * dtype.itemsize, numpy, elementwise=True))
    return as_nchw(y), winners


def _pool_by_taps_cuda(source: Array, geometry: Geometry) -> tuple[Array, Array]:
    return _pool_cuda(source, geometry, "uint8" if math.prod(geometry.kernel) <= MOST_TAPS_OF_A_BYTE else "int32")


def _pool_cuda(source: Array, geometry: Geometry, kind: str = "int32") -> tuple[Array, Array]:
    n, _, _, c = source.shape
    y = workspace.empty((n, *geometry.output, c), source.dtype)
    winners = workspace.empty(y.shape, kind)
    _FORWARD(y.size, source, y, winners.view("uint8"), y.size, geometry.struct(c), winners.itemsize)
    return as_nchw(y), as_nchw(winners)


@profiling.operation
def pool_backward(dy: Array, winners: Any, input_shape: tuple[int, int, int, int], window: Window) -> Array:
    """Return the gradient of ``pool``, as ``max_pool_backward`` does, for what ``pool`` returned as ``winners``."""
    geometry = check_pooling_gradient(dy, input_shape, window)
    n, c, h, w = input_shape
    dx = workspace.empty((n, h, w, c), dy.dtype)
    implementation(dy, _pool_backward_numpy, _pool_backward_cuda)(to_nhwc(dy), winners, dx, geometry)
    return as_nchw(dx)


def _pool_backward_numpy(gradient: Array, winners: Winners, dx: Array, geometry: Geometry) -> None:
    spread = _add if geometry.overlaps else _place

    def give(part: Part) -> None:
        images = part.images
        spread(gradient[images], Winners(winners.across[images], winners.down[images]), dx[images], geometry)

    threads.run(give, cut(len(dx), 1, dx[:1].nbytes, numpy, elementwise=True))


def _pool_backward_cuda(gradient: Array, winners: Array, dx: Array, geometry: Geometry) -> None:
    kernel, count = (_GATHER, dx.size) if geometry.overlaps else (_SCATTER, gradient.size)
    places = to_nhwc(winners).view("uint8")
    kernel(count, gradient, places, dx, count, geometry.struct(dx.shape[3]), winners.itemsize)


def _first_maxima(source: Array, best: Array, winner: Array, spans: tuple[TapRange, ...], nan_wins: bool) -> None:
    """Along axis 1 of ``source``, write the first maximum of every window to ``best`` and its tap to ``winner``.

    Args:
        nan_wins: whether the first NaN is looked for, too; otherwise a NaN gets to ``best`` but not to ``winner``.
    """
    first, *others = spans
    if not nan_wins and others and first.outputs == others[0].outputs == slice(0, best.shape[1]):
        second = others.pop(0)
        a, b = source[:, first.pixels], source[:, second.pixels]
        numpy.maximum(a, b, out=best)
        if (first.tap, second.tap) == (0, 1) and winner.dtype == numpy.uint8:
            numpy.greater(b, a, out=winner.view(bool))
        else:
            winner[...] = numpy.where(b > a, second.tap, first.tap)
        covered = 0
    else:
        best[:, first.outputs] = source[:, first.pixels]
        winner[:, first.outputs] = first.tap
        covered = first.first
    for span in others:
        if span.first < covered:  # windows that begin in the padding: this is their first tap
            new = replace(span, last=min(span.last, covered))
            best[:, new.outputs] = source[:, new.pixels]
            winner[:, new.outputs] = span.tap
            span, covered = replace(span, first=new.last), span.first
        if span.first < span.last:
            pixels, so_far = source[:, span.pixels], best[:, span.outputs]
            beats = ~(pixels <= so_far) & (so_far == so_far) if nan_wins else pixels > so_far
            numpy.maximum(so_far, pixels, out=so_far)
            taps = winner[:, span.outputs]
            # Taps ascend, so the winner is the largest tap that beats the maximum before it.
            numpy.maximum(taps, beats * winner.dtype.type(span.tap), out=taps)


def _place(dy: Array, winners: Winners, dx: Array, geometry: Geometry) -> None:
    """Write each window's gradient to its winner, where no two windows share a pixel: bits are passed on."""
    of_rows = workspace.empty((*dx.shape[:2], *dy.shape[2:]), dx.dtype)
    if geometry.skips[0]:
        of_rows.fill(0)
    if geometry.skips[1]:
        dx.fill(0)
    _give(dy, winners.down, of_rows, geometry.rows, 1)
    _give(of_rows, winners.across, dx, geometry.columns, 2)


def _give(source: Array, winner: Array, target: Array, spans: tuple[TapRange, ...], axis: int) -> None:
    """Along ``axis``, write ``source`` to the pixel of each window's winning tap and 0 to the window's others."""
    pixels = target.swapaxes(1, axis)
    if len(spans) == 2 and spans[0].outputs == spans[1].outputs == slice(0, source.shape[axis]):
        # What the second tap does not get is the first's, bit by bit.
        bits = f"int{8 * source.dtype.itemsize}"
        second = workspace.empty(source.shape, source.dtype)
        apply_mask_numpy(source, winner == spans[1].tap, second)
        pixels[:, spans[1].pixels] = second.swapaxes(1, axis)
        first = pixels[:, spans[0].pixels].swapaxes(1, axis)
        numpy.bitwise_xor(source.view(bits), second.view(bits), out=first.view(bits))
        return
    source, winner = source.swapaxes(1, axis), winner.swapaxes(1, axis)
    for span in spans:
        apply_mask_numpy(source[:, span.outputs], winner[:, span.outputs] == span.tap, pixels[:, span.pixels])


def _add(dy: Array, winners: Winners, dx: Array, geometry: Geometry) -> None:
    """Add each window's gradient to its winner, windows in the order of their taps; float16 is summed in float32."""
    dtype = acc_dtype(dx.dtype)
    total = dx if dx.dtype == dtype else workspace.empty(dx.shape, dtype)
    total.fill(0)
    for row in geometry.rows:
        held = winners.down[:, row.outputs] == row.tap
        across = winners.across[:, row.pixels]
        for column in geometry.columns:
            won = held[:, :, column.outputs] & (across[:, :, column.outputs] == column.tap)
            gradient = dy[:, row.outputs, column.outputs]
            kept = workspace.empty(gradient.shape, gradient.dtype)
            apply_mask_numpy(gradient, won, kept)
            total[:, row.pixels, column.pixels] += kept
    if total is not dx:  # rounded once
        dx[...] = total


def _argmax(winners: Winners, window: Window, shape: tuple) -> Array:
    """Return each winner's index in its plane, (N, C, OH, OW) int32."""
    rows, columns = _firsts(window, shape[2:])
    row = winners.down * window.dilation[0] + rows[:, None, None]
    of_window = numpy.take_along_axis(winners.across, row, axis=1)
    column = of_window * window.dilation[1] + columns[:, None]
    return as_nchw((row * shape[3] + column).astype("int32"))


def _winners(argmax: Array, window: Window, shape: tuple) -> Winners:
    """Return the inverse of ``_argmax``; winning columns in rows that did not win are unknown, and not needed."""
    rows, columns = _firsts(window, shape[2:])
    row, column = numpy.divmod(to_nhwc(argmax), shape[3])
    down = (row - rows[:, None, None]) // window.dilation[0]
    across = numpy.zeros((shape[0], shape[2], *down.shape[2:]), "int32")
    tap = (column - columns[:, None]) // window.dilation[1]
    numpy.put_along_axis(across, row, tap, axis=1)
    return Winners(across, down)


def _firsts(window: Window, image: tuple[int, int]) -> tuple[Array, Array]:
    """Return the row and the column of each window's first tap, which may lie in the padding."""
    (top, _, left, _), (oh, ow) = window.over(image).pads, window.over(image).output
    return numpy.arange(oh) * window.stride[0] - top, numpy.arange(ow) * window.stride[1] - left
