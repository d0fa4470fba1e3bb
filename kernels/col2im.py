"""col2im: the transpose of im2col. Every pixel sums up what the windows that contain it hold for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from backend import array_module, require_active, workspace
from kernels.im2col import check_order
from kernels.layout import images
from kernels.parts import Part, cut, run
from kernels.window import Window


def col2im(columns: Any, input_shape: tuple[int, int, int, int], window: Window, order: str = "CHW") -> Any:
    """Adds the rows of ``columns`` back into the images they would have come from.

    Taps are added in ascending order, row by row of the window: a pixel's sum has a fixed order, whatever
    computes it.

    Args:
        columns: (N·OH·OW, C·FH·FW) as :func:`kernels.im2col.im2col` makes them, any memory order.
        input_shape: (N, C, H, W) of the images.
        window: as given to im2col; what falls on padding is dropped.
        order: ``"CHW"`` or ``"HWC"``, as given to im2col.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``columns`` (float16 is summed in float32).

    Raises:
        ValueError: the shape of ``columns`` does not belong to ``input_shape`` and ``window``.
    """
    check_order(order)
    require_active(columns)
    if len(input_shape) != 4:
        raise ValueError(f"col2im makes images (N, C, H, W), not {tuple(input_shape)}")
    n, c, *image = input_shape
    (oh, ow), (fh, fw) = window.output_size((image[0], image[1])), window.kernel
    if columns.shape != (n * oh * ow, c * fh * fw):
        raise ValueError(
            f"columns of {columns.shape} do not belong to images {tuple(input_shape)} and {window}: "
            f"need {(n * oh * ow, c * fh * fw)}"
        )
    if order == "CHW":
        taps = columns.reshape(n, oh, ow, c, fh, fw).transpose(0, 1, 2, 4, 5, 3)
    else:
        taps = columns.reshape(n, oh, ow, fh, fw, c)
    result = workspace.empty((n, *image, c), columns.dtype)

    def add(part: Part) -> None:
        scatter(taps[part.images], result[part.images], window)

    # Whole images only: a band of rows shares pixels with the next.
    parts = cut(n, 1, oh * ow * fh * fw * c * columns.dtype.itemsize, array_module(columns))
    run(add, parts, columns)
    return images(result)


def scatter(taps: Any, result: Any, window: Window) -> None:
    """Sums ``taps`` (n, OH, OW, FH, FW, C) into ``result`` (n, H, W, C), which is overwritten."""
    total = result if result.dtype != "float16" else workspace.empty(result.shape, "float32")
    total.fill(0)
    for tap in window_taps(window, result.shape[1:3]):
        total[:, tap.in_rows, tap.in_columns] += taps[:, tap.out_rows, tap.out_columns, tap.row, tap.column]
    if total is not result:
        result[...] = total


class Tap(NamedTuple):
    """One position in the window, with the outputs for which it lies inside the image and the pixels it meets."""

    row: int
    column: int
    out_rows: slice
    out_columns: slice
    in_rows: slice
    in_columns: slice


def window_taps(window: Window, image: tuple[int, int]) -> Iterator[Tap]:
    """The taps of a window in ascending order; those that only ever meet padding are left out."""
    pads = window.pads(image)
    outputs = window.output_size(image)
    rows = [_meet(window, 0, tap, image[0], outputs[0], pads[0]) for tap in range(window.kernel[0])]
    columns = [_meet(window, 1, tap, image[1], outputs[1], pads[2]) for tap in range(window.kernel[1])]
    for row, (out_rows, in_rows) in enumerate(rows):
        for column, (out_columns, in_columns) in enumerate(columns):
            if out_rows.start < out_rows.stop and out_columns.start < out_columns.stop:
                yield Tap(row, column, out_rows, out_columns, in_rows, in_columns)


def _meet(window: Window, axis: int, tap: int, size: int, outputs: int, pad: int) -> tuple[slice, slice]:
    """Along one axis: the outputs o for which 0 ≤ o·stride + offset < size, and those pixels."""
    stride, offset = window.stride[axis], tap * window.dilation[axis] - pad
    first = max(-(offset // stride), 0)
    last = min((size - 1 - offset) // stride + 1, outputs)
    begin = first * stride + offset
    return slice(first, last), slice(begin, begin + (last - first - 1) * stride + 1, stride)
