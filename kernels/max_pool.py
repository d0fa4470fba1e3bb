"""Max pooling over channels-last memory, and where the maxima lie.

The first maximum of a window wins, in the order of its rows and then its columns; the first NaN wins over all (as
``np.argmax``); padding never wins: it is not looked at.

On the CPU a window is searched along its rows first, then among the rows: 2·k comparisons instead of k². What is kept
for backward is the winning tap of each search, one byte each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy

from backend import array_module, require_active, workspace
from kernels.col2im import window_taps
from kernels.gemm import accumulator
from kernels.im2col import check_dtype, check_images
from kernels.launch import Kernel, geometry
from kernels.layout import images, storage
from kernels.masking import apply_mask
from kernels.parts import Part, cut, run
from kernels.window import Window, check_every_window_sees

_FORWARD = Kernel("pooling.cu", "max_pool")
_GATHER = Kernel("pooling.cu", "max_pool_backward_gather")
_SCATTER = Kernel("pooling.cu", "max_pool_backward_scatter")


class Winners(NamedTuple):
    """Where the maxima lie, as the CPU keeps it: taps, counted from 0, uint8 where there are few enough.

    ``across`` (N, H, OW, C): in a row of pixels, which of a window's columns wins. ``down`` (N, OH, OW, C): which of its
    rows holds the maximum.
    """

    across: Any
    down: Any


def max_pool(x: Any, window: Window) -> tuple[Any, Any]:
    """The largest pixel of every window, and where it lies.

    Args:
        x: (N, C, H, W).
        window: kernel, stride, padding, dilation, rounding.

    Returns:
        y (N, C, OH, OW), dtype of ``x``, and argmax (N, C, OH, OW), int32: the winner's index row·W + column in
        its plane. Both have channels-last memory.

    Raises:
        TypeError: ``x`` is not of float16, float32 or float64.
        ValueError: ``x`` is not 4-D, or a window holds nothing but padding.
    """
    y, winners = pool(x, window)
    return y, _argmax(winners, window, x.shape) if isinstance(winners, Winners) else winners


def max_pool_backward(dy: Any, argmax: Any, input_shape: tuple[int, int, int, int], window: Window) -> Any:
    """The gradient of :func:`max_pool`: each window's goes to its winner; windows are added in tap order, and those
    that do not overlap pass its bits on.

    Args:
        dy: (N, C, OH, OW).
        argmax: as :func:`max_pool` returned it.
        input_shape: (N, C, H, W) of ``x``.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``dy``.

    Raises:
        TypeError: ``dy`` is not of float16, float32 or float64.
        ValueError: the shape of ``dy`` is not that of the output.
    """
    require_active(dy)
    check_gradient(dy, input_shape, window)
    if argmax.shape != dy.shape:
        raise ValueError(f"argmax has shape {argmax.shape}, the gradient {dy.shape}: both are the output's")
    if array_module(dy, argmax) is numpy:
        return pool_backward(dy, _winners(argmax, window, input_shape), input_shape, window)
    return pool_backward(dy, argmax, input_shape, window)


def pool(x: Any, window: Window) -> tuple[Any, Any]:
    """As :func:`max_pool`, with what :func:`pool_backward` wants in place of argmax: on a GPU argmax itself."""
    check_images("max pooling", x)
    check_dtype("max pooling", x)
    check_every_window_sees(window, x.shape[2:])
    library, source = array_module(x), storage(x)
    n, h, w, c = source.shape
    oh, ow = window.output_size((h, w))
    y = workspace.empty((n, oh, ow, c), x.dtype)
    if library is not numpy:
        argmax = workspace.empty(y.shape, "int32")
        _FORWARD(y.size, source, y, argmax, y.size, *geometry(window, c, (h, w)))
        return images(y), images(argmax)
    across, down = (_spans(window, axis, (h, w)[axis], (oh, ow)[axis]) for axis in (1, 0))
    kinds = ["uint8" if taps < 256 else "int32" for taps in window.kernel]
    winners = Winners(workspace.empty((n, h, ow, c), kinds[1]), workspace.empty(y.shape, kinds[0]))

    def search(part: Part) -> None:
        pixels, best = source[part.images], y[part.images]
        of_rows = workspace.empty((len(pixels), h, ow, c), x.dtype)
        places = [array[part.images] for array in winners]
        for first_nan_wins in (False, True):
            _first_maxima(pixels, of_rows, places[0], across, 2, first_nan_wins)
            _first_maxima(of_rows, best, places[1], down, 1, first_nan_wins)
            if not best.size or not numpy.isnan(best.max()):  # otherwise comparisons did not see the NaN
                break

    run(search, cut(n, 1, h * w * c * x.dtype.itemsize, library), x)
    return images(y), winners


def pool_backward(dy: Any, winners: Any, input_shape: tuple[int, int, int, int], window: Window) -> Any:
    """As :func:`max_pool_backward`, of what :func:`pool` returned."""
    require_active(dy)
    check_gradient(dy, input_shape, window)
    library, gradient = array_module(dy), storage(dy)
    n, c, h, w = input_shape
    dx = workspace.empty((n, h, w, c), dy.dtype)
    if library is not numpy:
        argmax = storage(winners)
        if window.overlaps:
            _GATHER(dx.size, gradient, argmax, dx, dx.size, *geometry(window, c, (h, w)))
        else:
            top, _, left, _ = window.pads((h, w))
            sizes = (c, h, w, *window.output_size((h, w)), *window.stride, top, left)
            _SCATTER(gradient.size, gradient, argmax, dx, gradient.size, *sizes)
        return images(dx)
    spread = _add if window.overlaps else _place

    def give(part: Part) -> None:
        places = Winners(*(array[part.images] for array in winners))
        spread(gradient[part.images], places, dx[part.images], window)

    run(give, cut(n, 1, h * w * c * dy.dtype.itemsize, library), dy)
    return images(dx)


class _Span(NamedTuple):
    """Along one axis, the outputs ``first`` … ``last - 1`` whose window has its tap ``tap`` inside the image. The tap
    of output o meets the pixel o·stride + offset.
    """

    tap: int
    first: int
    last: int
    stride: int
    offset: int

    @property
    def outputs(self) -> slice:
        return slice(self.first, self.last)

    @property
    def pixels(self) -> slice:
        begin = self.first * self.stride + self.offset
        return slice(begin, begin + (self.last - self.first - 1) * self.stride + 1, self.stride)


def _spans(window: Window, axis: int, size: int, outputs: int) -> list[_Span]:
    """The spans of the taps that meet a pixel, in ascending order. Each begins and ends no later than the one before."""
    before = window.pads((size, size))[2 * axis] if window.padding != "same" else None
    spans = []
    for tap in range(window.kernel[axis]):
        stride = window.stride[axis]
        offset = tap * window.dilation[axis] - (_same_pad(window, axis, size) if before is None else before)
        first, last = max(-(offset // stride), 0), min((size - 1 - offset) // stride + 1, outputs)
        if first < last:
            spans.append(_Span(tap, first, last, stride, offset))
    return spans
