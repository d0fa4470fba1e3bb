"""im2col: every window of an image as a row of a matrix, so that a convolution is one matrix product.

Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing" (2006).
"""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module, profiling, workspace
from backend.checks import instance
from kernels.core.checks import check_images, check_order
from kernels.core.geometry import Geometry
from kernels.core.launch import Kernel
from kernels.core.layout import to_nhwc
from kernels.core.tiling import Part, cut, parallel_for
from kernels.core.window import Window

_KERNELS = {"CHW": Kernel("im2col.cu", "im2col_chw"), "HWC": Kernel("im2col.cu", "im2col_hwc")}
_BITS = {2: "float16", 4: "float32", 8: "float64"}  # by their size: what numbers are copied as, whatever they mean
_RUN = 16  # numbers that a thread copies: enough to pay for finding its place


@profiling.operation
def im2col(x: Any, window: Window, order: str = "CHW") -> Any:
    """The windows of ``x`` as rows.

    Args:
        x: (N, C, H, W), any dtype, any memory order.
        window: kernel (FH, FW), stride, padding (zeros), dilation.
        order: what runs along a row: ``"CHW"`` (channel, row, column of the window; the book's order) or
            ``"HWC"`` (row, column, channel; runs of neighbouring memory, what the layers use).

    Returns:
        (N·OH·OW, C·FH·FW), C-contiguous, dtype of ``x``; rows in the order n, oh, ow.

    Raises:
        ValueError: ``x`` is not 4-D, the order has another name, or no window fits.

    Examples:
        >>> from backend import xp
        >>> from kernels.core.window import Window
        >>> from kernels.im2col import im2col
        >>> im2col(xp.arange(9).reshape(1, 1, 3, 3), Window(2))
        array([[0, 1, 3, 4],
               [1, 2, 4, 5],
               [3, 4, 6, 7],
               [4, 5, 7, 8]])
    """
    check_order(order)
    check_images("im2col", x)
    instance("window", window, Window, "a Window")
    library = array_module(x)
    n, c, *image = x.shape
    geometry = window.over(image)
    (oh, ow), (fh, fw) = geometry.output, geometry.kernel
    source = to_nhwc(x)
    if library is not numpy and x.dtype.itemsize in _BITS:
        return part_columns(source, geometry, Part(0, n, 0, oh), slice(0, c), order)
    columns = workspace.empty((n, oh, ow, *((c, fh, fw) if order == "CHW" else (fh, fw, c))), x.dtype)

    def fill(part: Part) -> None:
        patches = windows(source, geometry, part)
        if order == "CHW":
            patches = patches.transpose(0, 1, 2, 5, 3, 4)
        columns[part.images, part.rows] = patches

    parallel_for(fill, cut(n, oh, ow * fh * fw * c * x.dtype.itemsize, library), x)
    return columns.reshape(n * oh * ow, c * fh * fw)


def windows(source: Any, geometry: Geometry, part: Part) -> Any:
    """The windows of one part as a view: (n, rows, OW, FH, FW, C).

    Args:
        source: (N, H, W, C), C-contiguous. Where the part's windows reach into the padding, the view is of a
            padded copy of the rows it needs; the copy is scratch memory, so ``source`` itself never changes.
    """
    library = array_module(source)
    c, rows, ow = source.shape[3], part.last_row - part.first_row, geometry.output[1]
    (fh, fw), (sh, sw), (dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    top, _, left, _ = geometry.pads
    band = padded(
        source[part.images],
        part.first_row * sh - top,
        (rows - 1) * sh + geometry.extent[0],
        -left,
        (ow - 1) * sw + geometry.extent[1],
    )
    n_stride, h_stride, w_stride, c_stride = band.strides
    return library.lib.stride_tricks.as_strided(
        band,
        (len(band), rows, ow, fh, fw, c),
        (n_stride, h_stride * sh, w_stride * sw, h_stride * dh, w_stride * dw, c_stride),
    )


def part_columns(source: Any, geometry: Geometry, part: Part, channels: slice, order: str = "HWC") -> Any:
    """The columns of one part and some channels of device images, in one launch and with no other copy.

    Args:
        source: (N, H, W, C), C-contiguous, of a dtype of 2, 4 or 8 bytes.
        channels: begin and end among C.

    Returns:
        (n·rows·OW, FH·FW·channels) in ``order``, dtype of ``source``.
    """
    pixels, c = part.of_images(source), source.shape[3]
    size = _copied_bytes(pixels, channels) if order == "HWC" else pixels.itemsize
    together = size // pixels.itemsize
    pixels, c = pixels.view(_BITS[size]), c // together
    taken, first = (channels.stop - channels.start) // together, channels.start // together
    (fh, fw), rows = geometry.kernel, part.last_row - part.first_row
    columns = workspace.empty((len(pixels) * rows * geometry.output[1], fh * fw * taken), pixels.dtype)
    window = geometry.struct(taken, part.first_row, rows)
    _KERNELS[order](-(-columns.size // _RUN), pixels, columns, columns.size, window, c, first)
    return columns.view(source.dtype)


def _copied_bytes(pixels: Any, channels: slice) -> int:
    """Return the bytes that a thread can copy at once of (n, H, W, C): 8, 4 or 2, as one or more neighbouring channels.

    It is the largest power of two that divides the address and the bytes of all channels, and of those before the
    first and up to the last one taken.
    """
    multiples = 8 | pixels.data.ptr | pixels.itemsize * (pixels.shape[3] | channels.start | channels.stop)
    return multiples & -multiples


def padded(source: Any, first_row: int, rows: int, first_column: int, columns: int) -> Any:
    """Rows and columns of ``source`` (n, H, W, C) from a corner that may lie outside, with zeros there."""
    n, height, width, c = source.shape
    r0, r1 = max(first_row, 0), max(min(first_row + rows, height), 0)
    c0, c1 = max(first_column, 0), max(min(first_column + columns, width), 0)
    inside = source[:, r0:r1, c0:c1]
    if inside.shape == (n, rows, columns, c):
        return inside
    band = workspace.empty((n, rows, columns, c), source.dtype)
    above, before = r0 - first_row, c0 - first_column
    below, after = above + inside.shape[1], before + inside.shape[2]
    band.fill(0)  # all of it, in cache: four borders would be four calls that other threads wait between
    band[:, above:below, before:after] = inside
    return band
