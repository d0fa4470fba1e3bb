"""Convolution (cross-correlation, as the field calls it) as im2col and matrix products over channels-last memory.

With pixels as rows, the product ``columns (pixels, FH·FW·C) @ W (FH·FW·C, FN)`` is the output itself. The columns
exist for one part of the batch at a time and are made again in backward: copying from cache costs less than keeping
them. Groups split the channels; one channel a group (depthwise) has its own file, since it is no matrix product.

Examples:
    >>> from backend import xp
    >>> from kernels.convolution import convolution
    >>> from kernels.core.window import Window
    >>> convolution(xp.ones((1, 1, 3, 3)), xp.ones((1, 1, 2, 2)), None, Window(2))[0, 0]
    array([[4., 4.],
           [4., 4.]])
"""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module, profiling, require_active, require_arrays, workspace
from backend.checks import whole
from backend.types import Array
from kernels import activations, depthwise
from kernels.col2im import add_windows
from kernels.core.checks import check_gradient, check_images
from kernels.core.convolution_checks import check_backward_weight, check_bias, check_shapes, one_dtype
from kernels.core.dtypes import acc_dtype
from kernels.core.geometry import Geometry
from kernels.core.layout import as_nchw, folded, to_nhwc
from kernels.core.tiling import Part, channel_strips, cut, lanes, parallel_for
from kernels.core.window import Window
from kernels.gemm import column_sums, matmul_part, matmul_rows, piece_sums
from kernels.im2col import part_columns, windows


@profiling.operation
def convolution(x: Any, weight: Any, bias: Any, window: Window, groups: int = 1, relu: bool = False) -> Any:
    """y[n, f] = Σ_c x[n, c] ⋆ weight[f, c] + bias[f].

    Args:
        x: (N, C, H, W).
        weight: (FN, C / groups, FH, FW); filter f sees the channels of group f // (FN / groups).
        bias: (FN,) or None.
        window: its kernel is (FH, FW).
        groups: divides C and FN.
        relu: whether max(·, 0) follows; it is done part by part, while the part is in cache.

    Returns:
        (N, FN, OH, OW), channels-last memory, dtype of ``x``; with ``relu`` what ``kernels.activations.relu`` makes
        of that, the same bits: y, and where it is positive.

    Raises:
        TypeError: an array is not of float16, float32 or float64.
        ValueError: shapes or dtypes do not fit; the message has them.
    """
    check_images("convolution", x)
    require_arrays(weight=weight)
    groups = whole("groups", groups, 1)
    check_shapes(x.shape, weight.shape, window, groups)
    one_dtype(x=x, weight=weight)
    check_bias(bias, weight)
    return _convolve(x, weight, bias, window.over(x.shape[2:]), groups, relu)


def _convolve(x: Any, weight: Any, bias: Any, geometry: Geometry, groups: int, relu: bool = False) -> Any:
    source, y = to_nhwc(x), workspace.empty((len(x), *geometry.output, len(weight)), x.dtype)
    if depthwise.applies(weight, groups):
        depthwise.forward(source, weight, y, geometry)
        if bias is not None:
            y += bias
        return activations.relu(as_nchw(y)) if relu else as_nchw(y)
    positive = workspace.empty(y.shape, bool) if relu else None
    convolve = _convolve_numpy if array_module(x, weight) is numpy else _convolve_cuda
    convolve(source, weight, bias, geometry, groups, y, positive)
    return as_nchw(y) if positive is None else (as_nchw(y), as_nchw(positive))


def _convolve_numpy(
    source: Array, weight: Array, bias: Array | None, geometry: Geometry, groups: int, y: Array, positive: Array | None
) -> None:
    n, oh, ow, fn = y.shape
    matrices = _matrices(weight, groups, acc_dtype(y.dtype))
    k, c_group, f_group = len(matrices[0]), source.shape[3] // groups, fn // groups
    # Tiled to a whole row of the output: adding runs of a few channels would spend its time between the runs.
    row_bias = None if bias is None else numpy.tile(bias, ow)

    def multiply(part: Part) -> None:
        out = y[part.images, part.rows].reshape(-1, fn)
        if out.dtype != matrices[0].dtype:
            out = workspace.empty(out.shape, matrices[0].dtype)
        for group, matrix in enumerate(matrices):
            columns = _columns(source, geometry, part, _span(group, c_group), matrix.dtype)
            matmul_part(columns, matrix, out=out[:, _span(group, f_group)])
        if row_bias is not None:
            rows = out.reshape(-1, ow * fn)
            rows += row_bias
        if out.dtype != y.dtype:  # sums of another dtype are rounded once, after the bias
            y[part.images, part.rows].reshape(-1, fn)[...] = out
        if positive is not None:
            activations.rectify(y[part.images, part.rows], positive[part.images, part.rows])

    parallel_for(multiply, cut(n, oh, ow * k * matrices[0].dtype.itemsize, numpy), source)


def _convolve_cuda(
    source: Array, weight: Array, bias: Array | None, geometry: Geometry, groups: int, y: Array, positive: Array | None
) -> None:
    fn, c_group = len(weight), source.shape[3] // groups
    matrices = _matrices(weight, groups, y.dtype)  # cuBLAS sums float16 in float32 and rounds once
    for part in _parts_cuda(y, len(matrices[0])):
        out = part.of_output(y).reshape(-1, fn)
        for group, matrix in enumerate(matrices):
            columns = _columns_cuda(source, geometry, part, _span(group, c_group))
            matmul_part(columns, matrix, out=_columns_of(out, group, groups))
    if bias is not None:
        y += bias
    if positive is not None:
        activations.rectify(y, positive)


@profiling.operation
def convolution_backward_input(
    dy: Any, weight: Any, input_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> Any:
    """The gradient of ``convolution`` with respect to ``x``.

    At stride 1 it is itself a convolution, of ``dy`` with the flipped filters, which sums in a product what the
    general way (a product, then col2im) adds tap by tap.

    Args:
        dy: (N, FN, OH, OW).
        weight: (FN, C / groups, FH, FW).
        input_shape: (N, C, H, W) of ``x``.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``dy``.

    Raises:
        ValueError: the shape of ``dy`` is not that of the output.
    """
    require_active(dy, "dy")
    require_arrays(weight=weight)
    groups = whole("groups", groups, 1)
    check_shapes(input_shape, weight.shape, window, groups)
    one_dtype(dy=dy, weight=weight)
    geometry = window.over(input_shape[2:])
    check_gradient(dy, input_shape, len(weight), geometry)
    if depthwise.applies(weight, groups):
        result = workspace.empty((*_nhw(input_shape), input_shape[1]), dy.dtype)
        depthwise.backward_input(to_nhwc(dy), weight, result, geometry)
        return as_nchw(result)
    if geometry.mirrored is not None:
        return _convolve(dy, flipped(weight, groups), None, geometry.mirrored, groups)
    return _by_col2im(dy, weight, input_shape, geometry, groups)


@profiling.operation
def convolution_backward_weight(
    x: Any,
    dy: Any,
    weight_shape: tuple[int, int, int, int],
    window: Window,
    groups: int = 1,
    out: Any = None,
    bias_out: Any = None,
) -> Any:
    """The gradient of ``convolution`` with respect to ``weight``, and to ``bias``, too, if that is asked for.

    Args:
        x: (N, C, H, W).
        dy: (N, FN, OH, OW).
        weight_shape: (FN, C / groups, FH, FW).
        out: array of that shape to write to, or None for a new one.
        bias_out: array (FN,) to which the bias's gradient is written, Σ dy over images and pixels; or None.

    Returns:
        (FN, C / groups, FH, FW), dtype of ``x``.

    Raises:
        ValueError: the shape of ``dy`` is not that of the output.
    """
    groups = whole("groups", groups, 1)
    check_backward_weight(x, dy, weight_shape, window, groups, out, bias_out)
    geometry = window.over(x.shape[2:])
    source, gradient = to_nhwc(x), to_nhwc(dy)
    if out is None:
        out = array_module(x).empty(weight_shape, x.dtype)
    if depthwise.applies(out, groups):
        if bias_out is not None:
            column_sums(gradient.reshape(-1, len(out)), out=bias_out)
        depthwise.backward_weight(source, gradient, out, geometry)
        return out
    compute = _backward_weight_numpy if array_module(x, dy) is numpy else _backward_weight_cuda
    compute(source, gradient, geometry, groups, out, bias_out)
    return out


def _backward_weight_numpy(
    source: Array, gradient: Array, geometry: Geometry, groups: int, out: Array, bias_out: Array | None
) -> None:
    n, oh, ow, fn = gradient.shape
    _, c_group, fh, fw = out.shape
    f_group, k, dtype = fn // groups, fh * fw * c_group, acc_dtype(source.dtype)
    groups_of_parts = lanes(cut(n, oh, ow * k * dtype.itemsize, numpy), fn * k * dtype.itemsize)
    totals = numpy.zeros((max(len(groups_of_parts), 1), groups, k, f_group), dtype)
    sums = numpy.zeros((len(totals), fn), dtype) if bias_out is not None else None

    def multiply(lane: int) -> None:
        for part in groups_of_parts[lane]:
            rows = gradient[part.images, part.rows].reshape(-1, fn).astype(dtype, copy=False)
            for group in range(groups):
                columns = _columns(source, geometry, part, _span(group, c_group), dtype)
                totals[lane, group] += matmul_rows(columns, rows[:, _span(group, f_group)])
            if sums is not None:  # here, where the part is in cache
                sums[lane] += piece_sums(*folded(rows))

    parallel_for(multiply, list(range(len(groups_of_parts))), source)
    total = totals[0]
    for lane in range(1, len(totals)):
        total += totals[lane]
    if bias_out is not None and sums is not None:
        bias_out[...] = sums.sum(axis=0)
    by_filter = total.reshape(groups, fh, fw, c_group, f_group).transpose(0, 4, 3, 1, 2)
    out[...] = by_filter.reshape(out.shape)


def _backward_weight_cuda(
    source: Array, gradient: Array, geometry: Geometry, groups: int, out: Array, bias_out: Array | None
) -> None:
    fn, c_group, fh, fw = out.shape
    if bias_out is not None:
        column_sums(gradient.reshape(-1, fn), out=bias_out)
    parts = _parts_cuda(gradient, fh * fw * c_group)
    if not parts:
        out.fill(0)
        return
    for group in range(groups):
        total: Any = None
        for part in parts:
            columns = _columns_cuda(source, geometry, part, _span(group, c_group))
            product = matmul_rows(columns, _columns_of(part.of_output(gradient).reshape(-1, fn), group, groups))
            total = product.astype(acc_dtype(out.dtype), copy=False) if total is None else total + product
        filters = out if groups == 1 else out[_span(group, fn // groups)]
        filters[...] = total.reshape(fh, fw, c_group, -1).transpose(3, 2, 0, 1)


def _by_col2im(dy: Any, weight: Any, input_shape: tuple, geometry: Geometry, groups: int) -> Any:
    n, c, *image = input_shape
    (fh, fw), (oh, ow), fn = geometry.kernel, geometry.output, len(weight)
    gradient = to_nhwc(dy)
    c_group, f_group = c // groups, fn // groups
    dtype = acc_dtype(dy.dtype)  # on a GPU too: these products are not results yet, col2im adds them up
    library, channel_bytes = array_module(dy), oh * ow * fh * fw * dtype.itemsize
    # Windows overlap, so an image is not cut into bands; where its columns are too many, some channels at a time.
    strips = channel_strips(c_group, channel_bytes, library.__name__)
    matrices = []
    for group, matrix in enumerate(_matrices(weight, groups, dtype)):
        by_channel = matrix.reshape(fh * fw, c_group, f_group)
        for first, last in strips:
            channels = slice(group * c_group + first, group * c_group + last)
            matrices.append((channels, _span(group, f_group), by_channel[:, first:last].reshape(-1, f_group).T))
    result = workspace.empty((n, *image, c), dy.dtype)

    def add(part: Part) -> None:
        rows = gradient[part.images].reshape(-1, fn).astype(dtype, copy=False)
        for channels, filters, matrix in matrices:
            columns = workspace.empty((len(rows), matrix.shape[1]), dtype)
            matmul_part(rows[:, filters], matrix, out=columns)
            add_windows(columns, result[part.images, :, :, channels], geometry)

    parallel_for(add, cut(n, 1, channel_bytes * max((last - first for first, last in strips), default=0), library), dy)
    return as_nchw(result)


def _parts_cuda(output: Array, k: int) -> list[Part]:
    """Return the parts of a batch whose columns, k to a pixel of ``output`` (N, OH, OW, C), are made at a time."""
    n, oh, ow, _ = output.shape
    return cut(n, oh, ow * k * output.dtype.itemsize, array_module(output))


def _columns_cuda(source: Array, geometry: Geometry, part: Part, channels: slice) -> Array:
    """Return one part's columns of some channels: (pixels, FH·FW·channels), a view where the memory is that already."""
    if geometry.is_pixelwise:
        pixels = part.of_output(source)[..., channels]
        return pixels.reshape(-1, channels.stop - channels.start)
    return part_columns(source, geometry, part, channels)


def _columns_of(matrix: Array, group: int, groups: int) -> Array:
    """Return the columns of one group."""
    return matrix if groups == 1 else matrix[:, _span(group, matrix.shape[1] // groups)]


def _columns(source: Array, geometry: Geometry, part: Part, channels: slice, dtype: numpy.dtype) -> Array:
    """Return the same on a CPU."""
    patches = windows(source[..., channels] if channels != slice(0, source.shape[3]) else source, geometry, part)
    n, rows, ow, fh, fw, c = patches.shape
    shape = (n * rows * ow, fh * fw * c)
    if fh * fw == 1 and patches.dtype == dtype and patches.flags.c_contiguous:
        return patches.reshape(shape)
    if c < 4 and ow > fw * c:
        # Few channels make short runs: copy along the output's rows instead, and use the columns transposed.
        columns = workspace.empty((fh, fw, c, n, rows, ow), dtype)
        columns[...] = patches.transpose(3, 4, 5, 0, 1, 2)
        return columns.reshape(shape[::-1]).T
    columns = workspace.empty(patches.shape, dtype)
    columns[...] = patches
    return columns.reshape(shape)


def _matrices(weight: Any, groups: int, dtype: Any) -> list[Any]:
    """Each group's filters as (FH·FW·C/groups, FN/groups), C-contiguous, of ``dtype``."""
    fn, c_group, fh, fw = weight.shape
    if groups == 1:
        matrix = weight.transpose(2, 3, 1, 0).reshape(-1, fn)
        return [array_module(weight).ascontiguousarray(matrix, dtype=dtype)]
    by_group = weight.reshape(groups, fn // groups, c_group, fh, fw).transpose(0, 3, 4, 2, 1)
    stacked = by_group.reshape(groups, fh * fw * c_group, fn // groups)
    return list(array_module(weight).ascontiguousarray(stacked, dtype=dtype))


def flipped(weight: Any, groups: int) -> Any:
    """The filters of the transposed map: (C, FN / groups, FH, FW), rows and columns reversed."""
    fn, c_group, fh, fw = weight.shape
    by_group = weight[:, :, ::-1, ::-1].reshape(groups, fn // groups, c_group, fh, fw)
    return by_group.transpose(0, 2, 1, 3, 4).reshape(groups * c_group, fn // groups, fh, fw)


def _span(group: int, size: int) -> slice:
    return slice(group * size, (group + 1) * size)


def _nhw(shape: tuple[int, int, int, int]) -> tuple[int, int, int]:
    return shape[0], shape[2], shape[3]
