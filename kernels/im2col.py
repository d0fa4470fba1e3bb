"""im2col: every window of an image as a row of a matrix, so that a convolution is one matrix product.

Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing" (2006).
"""

from __future__ import annotations

import math

from backend import array_module, profiling, workspace
from backend.checks import instance
from backend.types import Array
from kernels.core.checks import check_images, check_order
from kernels.core.dispatch import implementation
from kernels.core.geometry import Geometry
from kernels.core.launch import Kernel
from kernels.core.layout import to_nhwc
from kernels.core.native import Function
from kernels.core.tiling import Part
from kernels.core.window import Window

_KERNELS = {"CHW": Kernel("im2col.cu", "im2col_chw"), "HWC": Kernel("im2col.cu", "im2col_hwc")}
_CHW, _HWC = Function("im2col.c", "im2col_chw"), Function("im2col.c", "im2col_hwc")
_BITS = {2: "float16", 4: "float32", 8: "float64"}  # by size: the dtypes that numbers of any meaning are copied as
_RUN = 16  # numbers that a thread copies: enough to pay for finding its place


@profiling.operation
def im2col(x: Array, window: Window, order: str = "CHW") -> Array:
    """Return the windows of ``x`` as rows.

    Args:
        x: (N, C, H, W), any dtype, any memory order.
        window: kernel (FH, FW), stride, padding (zeros), dilation.
        order: what runs along a row: ``"CHW"`` (channel, row, column of the window; the book's order) or
            ``"HWC"`` (row, column, channel; runs of neighboring memory, what the layers use).

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
    geometry = instance("window", window, Window, "a Window").over((x.shape[2], x.shape[3]))
    return implementation(x, im2col_numpy, _im2col_cuda, _im2col_native)(to_nhwc(x), geometry, order)


def im2col_numpy(source: Array, geometry: Geometry, order: str) -> Array:
    """Return the columns of (N, H, W, C), any strides, as ``im2col`` does: (N·OH·OW, FH·FW·C) in ``order``."""
    n, c = len(source), source.shape[3]
    patches = windows(source, geometry, Part(slice(0, n), slice(0, geometry.output[0])))
    if order == "CHW":
        patches = patches.transpose(0, 1, 2, 5, 3, 4)
    columns = workspace.empty(patches.shape, source.dtype)
    columns[...] = patches
    return columns.reshape(n * math.prod(geometry.output), math.prod(geometry.kernel) * c)


def _im2col_native(source: Array, geometry: Geometry, order: str) -> Array:
    n, c, (oh, ow), dtype = len(source), source.shape[3], geometry.output, source.dtype
    columns = workspace.empty((n * oh * ow, math.prod(geometry.kernel) * c), dtype)
    function, given = _CHW if order == "CHW" and c > 1 else _HWC, (source, columns, geometry.block(c), n)
    function.share(dtype, n * oh, columns.nbytes // max(n * oh, 1), *given)
    return columns


def _im2col_cuda(source: Array, geometry: Geometry, order: str) -> Array:
    n, _, _, c = source.shape
    if source.dtype.itemsize not in _BITS:
        return im2col_numpy(source, geometry, order)  # which CuPy's arrays can do, too
    whole = Part(slice(0, n), slice(0, geometry.output[0]))
    return device_columns(source, geometry, whole, slice(0, c), order)


def part_columns_cuda(source: Array, geometry: Geometry, part: Part, channels: slice) -> Array:
    """Return what ``device_columns`` does, or a view of the images where windows are pixels."""
    if geometry.is_pixelwise:
        return part.of_output(source)[..., channels].reshape(-1, channels.stop - channels.start)
    return device_columns(source, geometry, part, channels)


def device_columns(source: Array, geometry: Geometry, part: Part, channels: slice, order: str = "HWC") -> Array:
    """Return the columns of one part and some channels of device images, in one launch and without another copy.

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
    (fh, fw), rows = geometry.kernel, part.rows.stop - part.rows.start
    columns = workspace.empty((len(pixels) * rows * geometry.output[1], fh * fw * taken), pixels.dtype)
    window = geometry.struct(taken, part.rows.start, rows)
    _KERNELS[order](-(-columns.size // _RUN), pixels, columns, columns.size, window, c, first)
    return columns.view(source.dtype)


def _copied_bytes(pixels: Array, channels: slice) -> int:
    """Return the bytes that a thread can copy at once of (n, H, W, C): 8, 4 or 2, as one or more neighboring channels.

    It is the largest power of two that divides the address and the bytes of all channels, and of those before the
    first and up to the last one taken.
    """
    multiples = 8 | pixels.data.ptr | pixels.itemsize * (pixels.shape[3] | channels.start | channels.stop)  # type: ignore[attr-defined]
    return multiples & -multiples


def windows(source: Array, geometry: Geometry, part: Part) -> Array:
    """Return the windows of one part as a view: (n, rows, OW, FH, FW, C).

    Args:
        source: (N, H, W, C), C-contiguous. Where the part's windows reach into the padding, the view is of a
            padded copy of the rows it needs, in scratch memory; ``source`` itself never changes.
    """
    c, rows, ow = source.shape[3], part.rows.stop - part.rows.start, geometry.output[1]
    (fh, fw), (sh, sw), (dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    top, _, left, _ = geometry.pads
    band = padded(
        source[part.images],
        part.rows.start * sh - top,
        (rows - 1) * sh + geometry.extent[0],
        -left,
        (ow - 1) * sw + geometry.extent[1],
    )
    n_stride, h_stride, w_stride, c_stride = band.strides
    return array_module(band).lib.stride_tricks.as_strided(
        band,
        (len(band), rows, ow, fh, fw, c),
        (n_stride, h_stride * sh, w_stride * sw, h_stride * dh, w_stride * dw, c_stride),
    )


def padded(source: Array, first_row: int, rows: int, first_column: int, columns: int) -> Array:
    """Return rows and columns of ``source`` (n, H, W, C) from a corner that may lie outside, with zeros there."""
    n, height, width, c = source.shape
    r0, r1 = max(first_row, 0), max(min(first_row + rows, height), 0)
    c0, c1 = max(first_column, 0), max(min(first_column + columns, width), 0)
    inside = source[:, r0:r1, c0:c1]
    if inside.shape == (n, rows, columns, c):
        return inside
    band = workspace.zeros((n, rows, columns, c), source.dtype)
    above, before = r0 - first_row, c0 - first_column
    below, after = above + inside.shape[1], before + inside.shape[2]
    band[:, above:below, before:after] = inside
    return band
