"""Max and average pooling over channels-last memory.

Max pooling: the first maximum of a window wins, the first NaN wins over all (as ``np.argmax``), and padding never
wins: it is not looked at.
"""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module, require_active, workspace
from kernels.col2im import Tap, window_taps
from kernels.gemm import accumulator
from kernels.im2col import check_dtype, check_images
from kernels.launch import Kernel, geometry
from kernels.layout import images, storage
from kernels.masking import apply_mask
from kernels.parts import Part, cut, run
from kernels.window import Window

_MAX, _AVERAGE = Kernel("pooling.cu", "max_pool"), Kernel("pooling.cu", "average_pool")
_MAX_GATHER = Kernel("pooling.cu", "max_pool_backward_gather")
_MAX_SCATTER = Kernel("pooling.cu", "max_pool_backward_scatter")
_AVERAGE_BACKWARD = Kernel("pooling.cu", "average_pool_backward")


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
    check_images("max pooling", x)
    check_dtype("max pooling", x)
    taps = _taps(x.shape, window)
    library = array_module(x)
    source = storage(x)
    n, h, w, c = source.shape
    oh, ow = window.output_size((h, w))
    y = workspace.empty((n, oh, ow, c), x.dtype)
    argmax = workspace.empty((n, oh, ow, c), "int32")
    if library is not numpy:
        _MAX(y.size, source, y, argmax, y.size, *geometry(window, c, (h, w)))
        return images(y), images(argmax)
    origin, offsets = _origins((h, w), window, c, library), _offsets(taps, window, w)
    steps = library.asarray(offsets, "int32")

    def pool(part: Part) -> None:
        pixels, best = source[part.images], y[part.images]
        _maximum(pixels, best, taps, library)
        # Counts for every window the taps before the first that equals the maximum: that is the winner's number.
        winner = library.zeros(best.shape, "uint8" if len(taps) < 256 else "int32")
        searching = library.ones(best.shape, bool)
        for tap in taps:
            pixel, out = pixels[:, tap.in_rows, tap.in_columns], best[:, tap.out_rows, tap.out_columns]
            searching[:, tap.out_rows, tap.out_columns] &= pixel != out
            winner += searching
        _settle_nan(pixels, winner, searching, taps, library)
        where = argmax[part.images]
        library.take(steps, winner, out=where)
        where += origin

    run(pool, cut(n, 1, oh * ow * c * x.dtype.itemsize * 4, library), x)
    return images(y), images(argmax)


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
    taps = _taps(input_shape, window)
    _check_gradient(dy, input_shape, window)
    if argmax.shape != dy.shape:
        raise ValueError(f"argmax has shape {argmax.shape}, the gradient {dy.shape}: both are the output's")
    library = array_module(dy, argmax)
    n, c, h, w = input_shape
    gradient, winners = storage(dy), storage(argmax)
    dx = workspace.empty((n, h, w, c), dy.dtype)
    if library is not numpy:
        if window.overlaps:
            _MAX_GATHER(dx.size, gradient, winners, dx, dx.size, *geometry(window, c, (h, w)))
        else:
            top, _, left, _ = window.pads((h, w))
            sizes = (c, h, w, *window.output_size((h, w)), *window.stride, top, left)
            _MAX_SCATTER(gradient.size, gradient, winners, dx, gradient.size, *sizes)
        return images(dx)
    origin, offsets = _origins((h, w), window, c, library), _offsets(taps, window, w)

    def spread(part: Part) -> None:
        upstream, out = gradient[part.images], dx[part.images]
        sums = window.overlaps and dy.dtype != accumulator(dy.dtype)
        total = workspace.empty(out.shape, accumulator(dy.dtype)) if sums else out
        total.fill(0)
        step = winners[part.images] - origin
        for tap, offset in zip(taps, offsets, strict=True):
            won = step[:, tap.out_rows, tap.out_columns] == offset
            share = upstream[:, tap.out_rows, tap.out_columns]
            target = total[:, tap.in_rows, tap.in_columns]
            if window.overlaps:
                kept = workspace.empty(share.shape, share.dtype)
                apply_mask(share, won, kept)
                target += kept
            else:  # every pixel is in one window at most
                apply_mask(share, won, target)
        if sums:  # rounded once
            out[...] = total

    run(spread, cut(n, 1, h * w * c * dy.dtype.itemsize, library), dy)
    return images(dx)


def average_pool(x: Any, window: Window, count_padding: bool = False) -> Any:
    """The mean of every window.

    Args:
        x: (N, C, H, W).
        window: kernel, stride, padding, dilation, rounding.
        count_padding: whether padding counts as zeros in the mean, or only the pixels that exist do. What
            ``rounding="ceil"`` adds beyond the padding never counts.

    Returns:
        (N, C, OH, OW), channels-last memory, dtype of ``x`` (float16 is summed in float32).

    Raises:
        TypeError: ``x`` is not of float16, float32 or float64.
        ValueError: ``x`` is not 4-D, or a window holds nothing but padding.
    """
    check_images("average pooling", x)
    check_dtype("average pooling", x)
    taps = _taps(x.shape, window)
    library = array_module(x)
    source, dtype = storage(x), accumulator(x.dtype)
    n, h, w, c = source.shape
    y = workspace.empty((n, *window.output_size((h, w)), c), x.dtype)
    if library is not numpy:
        counted = _counted((h, w), window, count_padding)
        _AVERAGE(y.size, source, y, y.size, *geometry(window, c, (h, w)), *counted)
        return images(y)
    shares = _shares((h, w), window, count_padding, dtype, library)

    def pool(part: Part) -> None:
        pixels = source[part.images]
        total = workspace.zeros(y[part.images].shape, dtype)
        for tap in taps:
            total[:, tap.out_rows, tap.out_columns] += pixels[:, tap.in_rows, tap.in_columns]
        total *= shares
        y[part.images] = total

    run(pool, cut(n, 1, y[:1].size * dtype.itemsize, library), x)
    return images(y)


def average_pool_backward(
    dy: Any, input_shape: tuple[int, int, int, int], window: Window, count_padding: bool = False
) -> Any:
    """The gradient of :func:`average_pool`: each window's is shared evenly by the pixels that count.

    Args:
        dy: (N, C, OH, OW).
        input_shape: (N, C, H, W) of ``x``.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``dy``.

    Raises:
        TypeError: ``dy`` is not of float16, float32 or float64.
        ValueError: the shape of ``dy`` is not that of the output.
    """
    require_active(dy)
    taps = _taps(input_shape, window)
    _check_gradient(dy, input_shape, window)
    library = array_module(dy)
    n, c, h, w = input_shape
    gradient, dtype = storage(dy), accumulator(dy.dtype)
    dx = workspace.empty((n, h, w, c), dy.dtype)
    if library is not numpy:
        counted = _counted((h, w), window, count_padding)
        _AVERAGE_BACKWARD(dx.size, gradient, dx, dx.size, *geometry(window, c, (h, w)), *counted)
        return images(dx)
    shares = _shares((h, w), window, count_padding, dtype, library)

    def spread(part: Part) -> None:
        out = gradient[part.images] * shares
        total = workspace.zeros(dx[part.images].shape, dtype)
        for tap in taps:
            total[:, tap.in_rows, tap.in_columns] += out[:, tap.out_rows, tap.out_columns]
        dx[part.images] = total

    run(spread, cut(n, 1, h * w * c * dtype.itemsize, library), dy)
    return images(dx)


def _taps(shape: tuple, window: Window) -> list[Tap]:
    """The window's taps, after making sure that every window has a pixel of its own."""
    image, outputs = (shape[2], shape[3]), window.output_size((shape[2], shape[3]))
    taps = list(window_taps(window, image))
    spans = (("row", [tap.out_rows for tap in taps]), ("column", [tap.out_columns for tap in taps]))
    for count, (name, met) in zip(outputs, spans, strict=True):
        seen = {output for span in met for output in range(span.start, span.stop)}
        empty = sorted(set(range(count)) - seen)
        if empty:
            raise ValueError(
                f"pooling with {window} over images of {image[0]}x{image[1]}: the windows of output {name} "
                f"{empty[0]} hold nothing but padding"
            )
    return taps


def _maximum(pixels: Any, best: Any, taps: list[Tap], library: Any) -> None:
    """Writes the maximum of every window to ``best`` (n, OH, OW, C). NaN passes on."""
    first = pixels[:, taps[0].in_rows, taps[0].in_columns]
    whole = first.shape == best.shape
    if whole:
        best[...] = first
    else:
        best.fill(-library.inf)
    for tap in taps[1:] if whole else taps:
        out = best[:, tap.out_rows, tap.out_columns]
        library.maximum(out, pixels[:, tap.in_rows, tap.in_columns], out=out)


def _settle_nan(pixels: Any, winner: Any, searching: Any, taps: list[Tap], library: Any) -> None:
    """Gives the windows whose maximum is NaN, which equals nothing, their first NaN."""
    if library is numpy and not searching.any():
        return
    winner -= searching * winner.dtype.type(len(taps))  # they counted every tap; start again from 0
    for tap in taps:
        searching[:, tap.out_rows, tap.out_columns] &= ~library.isnan(pixels[:, tap.in_rows, tap.in_columns])
        winner += searching


def _origins(image: tuple[int, int], window: Window, channels: int, library: Any) -> Any:
    """The in-plane index of each window's first tap, (OH, OW, C) int32; of one in the padding, a negative number or
    one of another row, which the first tap that lies inside makes right.
    """
    top, _, left, _ = window.pads(image)
    oh, ow = window.output_size(image)
    rows = library.arange(oh, dtype="int32") * window.stride[0] - top
    columns = library.arange(ow, dtype="int32") * window.stride[1] - left
    index = rows[:, None, None] * image[1] + columns[:, None]
    # Repeated for every channel: an operation with a broadcast last axis would run in steps of a few channels.
    return library.ascontiguousarray(library.broadcast_to(index, (oh, ow, channels)))


def _offsets(taps: list[Tap], window: Window, width: int) -> list[int]:
    """How far each tap lies behind its window's first in the plane."""
    return [tap.row * window.dilation[0] * width + tap.column * window.dilation[1] for tap in taps]


def _shares(image: tuple[int, int], window: Window, count_padding: bool, dtype: Any, library: Any) -> Any:
    """1 / (pixels that count) for each window: (OH, OW, 1)."""
    counts = []
    top, _, left, _ = window.pads(image)
    first_row, end_row, first_column, end_column = _counted(image, window, count_padding)
    spans = ((top, first_row, end_row), (left, first_column, end_column))
    for axis, (outputs, (before, begin, end)) in enumerate(zip(window.output_size(image), spans, strict=True)):
        firsts = [o * window.stride[axis] - before for o in range(outputs)]
        offsets = [tap * window.dilation[axis] for tap in range(window.kernel[axis])]
        counts.append([sum(begin <= first + offset < end for offset in offsets) for first in firsts])
    rows, columns = (library.asarray(count, dtype) for count in counts)
    return 1 / (rows[:, None, None] * columns[None, :, None])


def _counted(image: tuple[int, int], window: Window, count_padding: bool) -> tuple[int, int, int, int]:
    """First row, end row, first column and end column of what counts in a mean."""
    top, bottom, left, right = window.pads(image) if count_padding else (0, 0, 0, 0)
    return -top, image[0] + bottom, -left, image[1] + right


def _check_gradient(dy: Any, input_shape: tuple, window: Window) -> None:
    check_dtype("pooling", dy)
    expected = (*input_shape[:2], *window.output_size(input_shape[2:]))
    if dy.shape != expected:
        raise ValueError(f"the gradient has shape {dy.shape}, the output {expected}")
