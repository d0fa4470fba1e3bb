"""Turn images into windows and back, as the course does: rows of one image, or columns of a batch."""

from __future__ import annotations

from typing import Any

from backend import xp
from backend.checks import whole
from backend.types import Array
from kernels import col2im as _col2im
from kernels import im2col as _im2col
from kernels.core.window import Window
from layers.compat._course_arguments import operands
from layers.compat._options import whole_or_pair

ImageShape = tuple[int, int, int]
BatchShape = tuple[int, int, int, int]


def im2col(x: Array, field_height: int, field_width: int, stride: int = 1, padding: int = 0) -> Array:
    """Lay out the windows of one image (C, H, W) as rows: (OH·OW, C·field_height·field_width), any dtype.

    Row i·OW + j is the window of output pixel (i, j), flattened in the order channel, row, column: the layout of
    per-image assignments, and that of ``layers.im2col`` for a batch. Lecture notes that make every window a column
    have its transpose.
    """
    if getattr(x, "ndim", None) != 3:
        given = getattr(x, "shape", type(x).__name__)
        raise ValueError(f"im2col takes one image (C, H, W), got {given} (layers.im2col takes a batch)")
    return _im2col.im2col(x[None], _field(field_height, field_width, stride, padding))


def col2im(
    columns: Array, x_shape: ImageShape, field_height: int, field_width: int, stride: int = 1, padding: int = 0
) -> Array:
    """Add rows in the layout of ``im2col`` back into an image (C, H, W) of ``x_shape``, without its padding."""
    if len(x_shape) != 3:
        raise ValueError(f"col2im makes one image (C, H, W), not {tuple(x_shape)} (layers.col2im makes a batch)")
    return _col2im.col2im(columns, (1, *x_shape), _field(field_height, field_width, stride, padding))[0]


def im2col_indices(x: Array, field_height: int, field_width: int, padding: int = 1, stride: int = 1) -> Array:
    """Lay out the windows of images (N, C, H, W) as columns: (C·field_height·field_width, OH·OW·N), any dtype.

    Column (i·OW + j)·N + n is the window of output pixel (i, j) of image n, flattened in the order channel, row,
    column. Pixels at the bottom and right that do not fill a window are ignored.
    """
    if getattr(x, "ndim", None) != 4:
        raise ValueError(f"im2col_indices takes images (N, C, H, W), got {getattr(x, 'shape', type(x).__name__)}")
    window = _field(field_height, field_width, stride, padding)
    rows = _im2col.im2col(x, window)
    oh, ow = window.over(x.shape[2:]).output
    return rows.reshape(len(x), oh * ow, rows.shape[1]).transpose(2, 1, 0).reshape(rows.shape[1], oh * ow * len(x))


def col2im_indices(
    cols: Array, x_shape: BatchShape, field_height: int = 3, field_width: int = 3, padding: int = 1, stride: int = 1
) -> Array:
    """Add columns in the layout of ``im2col_indices`` back into images (N, C, H, W) of ``x_shape``, without padding."""
    (cols,) = operands("col2im_indices", cols=cols)
    window = _field(field_height, field_width, stride, padding)
    n, numbers, pixels = _sizes("col2im_indices", x_shape, window)
    if cols.shape != (numbers, pixels * n):
        raise ValueError(
            f"col2im_indices needs cols {(numbers, pixels * n)} for images {tuple(x_shape)} and {window}, "
            f"got {cols.shape}"
        )
    rows = cols.reshape(numbers, pixels, n).transpose(2, 1, 0).reshape(n * pixels, numbers)
    return _col2im.col2im(rows, x_shape, window)


def get_im2col_indices(
    x_shape: BatchShape, field_height: int, field_width: int, padding: int = 1, stride: int = 1
) -> tuple[Array, Array, Array]:
    """Return the indices of the elements that ``im2col_indices`` takes from padded images: ``padded[:, k, i, j]``.

    Returns:
        channels k (C·field_height·field_width, 1); rows i and columns j (C·field_height·field_width, OH·OW).
    """
    window = _field(field_height, field_width, stride, padding)
    _sizes("get_im2col_indices", x_shape, window)
    channels, (fh, fw), (oh, ow) = x_shape[1], window.kernel, window.over(x_shape[2:]).output
    k, i, j = xp.indices((channels, fh, fw)).reshape(3, -1, 1)
    row, column = xp.indices((oh, ow)).reshape(2, 1, -1)
    return k, i + window.stride[0] * row, j + window.stride[1] * column


def im2col_cython(x: Array, field_height: int, field_width: int, padding: int, stride: int) -> Array:
    """Call ``im2col_indices``, under the name of the course's compiled function."""
    return im2col_indices(x, field_height, field_width, padding, stride)


def col2im_cython(
    cols: Array, N: int, C: int, H: int, W: int, field_height: int, field_width: int, padding: int, stride: int
) -> Array:
    """Call ``col2im_indices``, with the name and the arguments of the course's compiled function."""
    return col2im_indices(cols, (N, C, H, W), field_height, field_width, padding, stride)


def col2im_6d_cython(cols: Array, N: int, C: int, H: int, W: int, HH: int, WW: int, pad: int, stride: int) -> Array:
    """Add windows (C, HH, WW, N, OH, OW) back into images (N, C, H, W), without their padding."""
    (cols,) = operands("col2im_6d_cython", cols=cols)
    window = _field(HH, WW, stride, pad)
    _, numbers, pixels = _sizes("col2im_6d_cython", (N, C, H, W), window)
    expected = (C, HH, WW, N, *window.over((H, W)).output)
    if cols.shape != expected:
        raise ValueError(f"col2im_6d_cython needs cols {expected} for {window}, got {cols.shape}")
    rows = cols.transpose(3, 4, 5, 0, 1, 2).reshape(N * pixels, numbers)
    return _col2im.col2im(rows, (N, C, H, W), window)


def _sizes(owner: str, x_shape: BatchShape, window: Window) -> tuple[int, int, int]:
    """Return N, the number of elements of a window over all channels, and the number of output pixels."""
    if len(x_shape) != 4:
        raise ValueError(f"{owner} needs the shape of images (N, C, H, W), not {tuple(x_shape)}")
    (oh, ow), (fh, fw) = window.over(x_shape[2:]).output, window.kernel
    return x_shape[0], x_shape[1] * fh * fw, oh * ow


def _field(field_height: Any, field_width: Any, stride: Any, padding: Any) -> Window:
    kernel = (
        whole("field_height", field_height, 1, floats=True),
        whole("field_width", field_width, 1, floats=True),
    )
    return Window(kernel, whole_or_pair("stride", stride, 1), whole_or_pair("padding", padding, 0))
