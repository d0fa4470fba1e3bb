"""Average pooling over channels-last memory, and what both poolings ask of images and gradients."""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module, profiling, require_active, workspace
from kernels.col2im import Tap, window_taps
from kernels.gemm import accumulator
from kernels.im2col import check_dtype, check_images
from kernels.launch import Kernel, geometry
from kernels.layout import images, storage
from kernels.parts import Part, cut, run
from kernels.window import Window

_AVERAGE = Kernel("pooling.cu", "average_pool")
_AVERAGE_BACKWARD = Kernel("pooling.cu", "average_pool_backward")


@profiling.operation
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
    taps = checked_taps(x.shape, window)
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


@profiling.operation
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
    taps = checked_taps(input_shape, window)
    check_gradient(dy, input_shape, window)
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


def checked_taps(shape: tuple, window: Window) -> list[Tap]:
    """The window's taps, after making sure that every window has a pixel of its own; a ValueError otherwise."""
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


def check_gradient(dy: Any, input_shape: tuple, window: Window) -> None:
    """Raises unless ``dy`` is floating and has the shape of the output of a pooling."""
    check_dtype("pooling", dy)
    expected = (*input_shape[:2], *window.output_size(input_shape[2:]))
    if dy.shape != expected:
        raise ValueError(f"the gradient has shape {dy.shape}, the output {expected}")
