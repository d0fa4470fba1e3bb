"""col2im, the transpose of im2col: every pixel sums up the numbers that the windows containing it hold for it."""

from __future__ import annotations

import math
from typing import Literal

import numpy

from backend import array_module, profiling, require_active, workspace
from backend.checks import choice, instance, sizes
from backend.types import Array
from kernels.core.checks import check_dtype, check_order
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.geometry import Geometry
from kernels.core.launch import Kernel
from kernels.core.layout import as_nchw
from kernels.core.native import Function
from kernels.core.window import Window

_GATHER, _SCATTER = Kernel("col2im.cu", "col2im_gather"), Kernel("col2im.cu", "col2im_scatter")
_CHW, _HWC = Function("col2im.c", "col2im_chw"), Function("col2im.c", "col2im_hwc")
_SCATTER_PLAIN = Kernel("col2im.cu", "col2im_scatter_plain")


@profiling.operation
def col2im(
    columns: Array,
    input_shape: tuple[int, int, int, int],
    window: Window,
    order: str = "CHW",
    method: Literal["gather", "scatter"] = "gather",
) -> Array:
    """Add the rows of ``columns`` back into the images that they would have come from.

    Args:
        columns: (N·OH·OW, C·FH·FW) as ``kernels.im2col.im2col`` makes them, any memory order.
        input_shape: (N, C, H, W) of the images.
        window: as given to im2col; numbers that fall on padding are dropped.
        order: ``"CHW"`` or ``"HWC"``, as given to im2col.
        method: of a GPU. ``"gather"``: one thread for each pixel sums up its own, taps in ascending order, with the
            same bits every time and on the CPU. ``"scatter"``: one thread for each number of the columns adds it by
            ``atomicAdd``, in the order in which the threads come. The CPU has one method, in the gather's order.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``columns`` (float16 is summed in float32).

    Raises:
        TypeError: ``columns`` are not of float16, float32 or float64.
        ValueError: the shape of ``columns`` does not belong to ``input_shape`` and ``window``, or the order or the
            method has another name.

    Examples:
        >>> from backend import xp
        >>> from kernels.col2im import col2im
        >>> from kernels.core.window import Window
        >>> col2im(xp.ones((4, 4)), (1, 1, 3, 3), Window(2))[0, 0]
        array([[1., 2., 1.],
               [2., 4., 2.],
               [1., 2., 1.]])
    """
    check_order(order)
    choice("method", method, ("gather", "scatter"))
    require_active(columns, "columns")
    check_dtype("col2im", columns)
    instance("window", window, Window, "a Window")
    n, c, *image = sizes("input_shape", input_shape, 0, 4)
    geometry = window.over((image[0], image[1]))
    (oh, ow), (fh, fw) = geometry.output, geometry.kernel
    if columns.shape != (n * oh * ow, c * fh * fw):
        raise ValueError(
            f"columns of {columns.shape} do not belong to images {tuple(input_shape)} and {window}: "
            f"need {(n * oh * ow, c * fh * fw)}"
        )
    result = workspace.empty((n, *image, c), columns.dtype)
    add_windows(columns, result, geometry, order, method)
    return as_nchw(result)


def add_windows(columns: Array, result: Array, geometry: Geometry, order: str = "HWC", method: str = "gather") -> None:
    """Sum ``columns`` (n·OH·OW, FH·FW·C in ``order``) into ``result`` (n, H, W, C), which is overwritten."""
    add = implementation(columns, _add_windows_numpy, _add_windows_cuda, _add_windows_native)
    add(columns, result, geometry, order, method)


def _add_windows_numpy(columns: Array, result: Array, geometry: Geometry, order: str, method: str) -> None:
    (n, _, _, c), (oh, ow), (fh, fw) = result.shape, geometry.output, geometry.kernel
    dtype = acc_dtype(columns.dtype)
    shape, axes = ((c, fh, fw), (0, 1, 2, 4, 5, 3)) if order == "CHW" else ((fh, fw, c), (0, 1, 2, 3, 4, 5))
    taps = columns.reshape(n, oh, ow, *shape).transpose(axes)
    total = numpy.zeros(result.shape, dtype)
    for tap in geometry.taps:
        total[:, tap.in_rows, tap.in_columns] += taps[:, tap.out_rows, tap.out_columns, tap.row, tap.column]
    result[...] = total


def _add_windows_native(columns: Array, result: Array, geometry: Geometry, order: str, method: str) -> None:
    n, h, _, c = result.shape
    total = result if result.flags.c_contiguous else workspace.empty(result.shape, result.dtype)
    function = _CHW if order == "CHW" and c > 1 else _HWC
    given = numpy.ascontiguousarray(columns), total, geometry.block(c), n
    function.share(columns.dtype, n * h, columns.nbytes // max(n * h, 1), *given)
    if total is not result:
        result[...] = total


def _add_windows_cuda(columns: Array, result: Array, geometry: Geometry, order: str, method: str) -> None:
    """Launch the kernel of a method.

    The scatter of windows that do not overlap writes the pixels that they contain, and no others. Only where there are
    others, in gaps between windows or behind the last, the whole image is set to zero before, in one more pass.
    """
    library, c = array_module(columns), result.shape[3]
    columns = library.ascontiguousarray(columns)
    scatter, steps = method == "scatter", (1, math.prod(geometry.kernel)) if order == "CHW" else (c, 1)
    kernel = _GATHER if not scatter else _SCATTER if geometry.overlaps else _SCATTER_PLAIN
    # atomicAdd needs the result in the dtype of sums; elsewhere a thread has the whole sum, and rounds it.
    dtype = acc_dtype(columns.dtype) if kernel is _SCATTER else columns.dtype
    total = result
    if not result.flags.c_contiguous or result.dtype != dtype:
        total = library.empty(result.shape, dtype)
    if scatter and (geometry.overlaps or geometry.has_gaps):
        total.fill(0)
    count = columns.size if scatter else total.size
    kernel(count, columns, total, count, geometry.struct(c), *steps)
    if total is not result:
        result[...] = total
