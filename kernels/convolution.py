"""Convolution (cross-correlation, as the field calls it), here as im2col and matrix products over channels-last memory.

C kernels (``kernels.convolution_native``) and GPUs with tensor cores (``kernels.convolution_cuda``) make no columns.

With pixels as rows, the product ``columns (pixels, FH·FW·C) @ W (FH·FW·C, FN)`` is the output itself. The columns
exist for one part of the batch at a time and are made again in backward: copying from cache costs less than keeping
them. Groups split the channels; one channel a group (depthwise) has its own file, since it is not a matrix product.

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

from backend import array_module, profiling, threads, workspace
from backend.checks import whole
from backend.types import Array
from kernels import (
    activations,
    convolution_cuda,
    convolution_native,
    convolution_weight_native,
    depthwise,
    implicit_gemm,
)
from kernels.batch_statistics import Moments
from kernels.col2im import add_windows
from kernels.core.checks import check_convolution
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.filters import filter_matrices, flipped, group_ranges, is_depthwise
from kernels.core.geometry import Geometry
from kernels.core.layout import as_nchw, to_nhwc
from kernels.core.tiling import Part, channel_strips, cut, parallel_for
from kernels.core.window import Window
from kernels.gemm import matmul_part
from kernels.im2col import part_columns_numpy

Shape = tuple[int, int, int, int]


@profiling.operation
def convolution(
    x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1, relu: bool = False
) -> Any:
    """Compute y[n, f] = Σ_c x[n, c] ⋆ weight[f, c] + bias[f].

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
    groups = whole("groups", groups, 1)
    geometry = check_convolution(window, groups, x=x, weight=weight, bias=bias)
    y, positive, _ = _convolve(x, weight, bias, geometry, groups, relu)
    return (y, positive) if relu else y


@profiling.operation
def convolution_measured(
    x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1
) -> tuple[Array, Moments | None]:
    """Do what ``convolution`` does, and measure its output for a batch normalization while parts of it are in cache.

    Returns:
        What ``convolution`` does, the same bits; and the moments of the matrix of its pixels by filters, which
        ``kernels.batch_norm`` takes; or None where there is no kernel that takes them as it writes the output.

    Raises:
        TypeError, ValueError: as ``convolution``.
    """
    groups = whole("groups", groups, 1)
    geometry = check_convolution(window, groups, x=x, weight=weight, bias=bias)
    y, _, moments = _convolve(x, weight, bias, geometry, groups, measured=True)
    return y, moments


def _convolve(
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    groups: int,
    relu: bool = False,
    measured: bool = False,
) -> tuple[Array, Array | None, Moments | None]:
    source, y = to_nhwc(x), workspace.empty((len(x), *geometry.output, len(weight)), x.dtype)
    positive = workspace.empty(y.shape, bool) if relu else None
    if is_depthwise(weight.shape, groups):
        moments = depthwise.forward(source, weight, bias, geometry, y, positive, measured)
    else:
        compute = implementation(x, _convolve_numpy, convolution_cuda.forward, convolution_native.forward)
        moments = compute(source, weight, bias, geometry, groups, y, positive, measured)
    return as_nchw(y), None if positive is None else as_nchw(positive), moments


def _convolve_numpy(
    source: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    groups: int,
    y: Array,
    positive: Array | None,
    measured: bool,
) -> None:
    n, oh, ow, fn = y.shape
    dtype = acc_dtype(y.dtype)  # there is no half-precision BLAS
    matrices = filter_matrices(weight, groups, dtype)
    channels, filters = group_ranges(source.shape[3], groups), group_ranges(fn, groups)

    def multiply(part: Part) -> None:
        y_part = y[part.images, part.rows]
        out = y_part.reshape(-1, fn)
        if out.dtype != dtype:
            out = workspace.empty(out.shape, dtype)
        for group, matrix in enumerate(matrices):
            columns = part_columns_numpy(source, geometry, part, channels[group], dtype)
            numpy.matmul(columns, matrix, out=out[:, filters[group]])
        if bias is not None:
            out += bias
        if out.dtype != y.dtype:  # sums of another dtype are rounded once, after the bias
            y_part.reshape(-1, fn)[...] = out
        if positive is not None:
            activations.rectify(y_part, positive[part.images, part.rows])

    threads.run(multiply, cut(n, oh, ow * len(matrices[0]) * dtype.itemsize, numpy))


@profiling.operation
def convolution_backward_input(dy: Array, weight: Array, input_shape: Shape, window: Window, groups: int = 1) -> Array:
    """Return the gradient of ``convolution`` with respect to ``x``.

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
    groups = whole("groups", groups, 1)
    geometry = check_convolution(window, groups, input_shape, dy=dy, weight=weight)
    if is_depthwise(weight.shape, groups):
        n, c, h, w = input_shape
        result = workspace.empty((n, h, w, c), dy.dtype)
        depthwise.backward_input(to_nhwc(dy), weight, result, geometry)
        return as_nchw(result)
    compute = implementation(dy, _backward_input_numpy, _backward_input_cuda, _backward_input_native)
    return compute(dy, weight, input_shape, geometry, groups)


def _backward_input_numpy(dy: Array, weight: Array, input_shape: Shape, geometry: Geometry, groups: int) -> Array:
    if geometry.mirrored is not None:
        return _convolve(dy, flipped(weight, groups), None, geometry.mirrored, groups)[0]
    return _by_col2im(dy, weight, input_shape, geometry, groups)


def _backward_input_native(dy: Array, weight: Array, input_shape: Shape, geometry: Geometry, groups: int) -> Array:
    n, c, h, w = input_shape
    dx = workspace.empty((n, h, w, c), dy.dtype)
    convolution_native.backward_input(to_nhwc(dy), weight, geometry, groups, dx)
    return as_nchw(dx)


def _backward_input_cuda(dy: Array, weight: Array, input_shape: Shape, geometry: Geometry, groups: int) -> Array:
    if implicit_gemm.refusal(dy.dtype, weight.shape, geometry, groups):
        return _backward_input_numpy(dy, weight, input_shape, geometry, groups)  # which CuPy's arrays can do, too
    n, c, h, w = input_shape
    dx = workspace.empty((n, h, w, c), dy.dtype)
    convolution_cuda.backward_input(to_nhwc(dy), weight, geometry, groups, dx)
    return as_nchw(dx)


def _by_col2im(dy: Array, weight: Array, input_shape: Shape, geometry: Geometry, groups: int) -> Array:
    """Multiply each pixel's gradient by the filters, and add up the columns that this makes."""
    n, c, h, w = input_shape
    (fh, fw), (oh, ow), fn = geometry.kernel, geometry.output, len(weight)
    gradient = to_nhwc(dy)
    c_group, f_group = c // groups, fn // groups
    dtype = acc_dtype(dy.dtype)  # on a GPU too: these products are not results yet, col2im adds them up
    library, channel_bytes = array_module(dy), oh * ow * fh * fw * dtype.itemsize
    # Windows overlap, so an image is not cut into bands; where its columns are too many, some channels at a time.
    strips = channel_strips(c_group, channel_bytes, library)
    of_groups = zip(filter_matrices(weight, groups, dtype), group_ranges(fn, groups), strict=True)
    matrices = []
    for group, (matrix, filters) in enumerate(of_groups):
        by_channel = matrix.reshape(fh * fw, c_group, f_group)
        for first, last in strips:
            channels = slice(group * c_group + first, group * c_group + last)
            matrices.append((channels, filters, by_channel[:, first:last].reshape(-1, f_group).T))
    result = workspace.empty((n, h, w, c), dy.dtype)

    def add(part: Part) -> None:
        rows = gradient[part.images].reshape(-1, fn).astype(dtype, copy=False)
        for channels, filters, matrix in matrices:
            columns = workspace.empty((len(rows), matrix.shape[1]), dtype)
            matmul_part(rows[:, filters], matrix, out=columns)
            add_windows(columns, result[part.images, :, :, channels], geometry)

    parallel_for(add, cut(n, 1, channel_bytes * max((last - first for first, last in strips), default=0), library), dy)
    return as_nchw(result)


@profiling.operation
def convolution_backward_weight(
    x: Array,
    dy: Array,
    weight_shape: Shape,
    window: Window,
    groups: int = 1,
    out: Array | None = None,
    bias_out: Array | None = None,
) -> Array:
    """Return the gradient of ``convolution`` with respect to ``weight``; compute that of ``bias``, if asked for.

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
    geometry = check_convolution(window, groups, None, weight_shape, x=x, dy=dy, out=out, bias_out=bias_out)
    out = array_module(x).empty(weight_shape, x.dtype) if out is None else out
    source, gradient = to_nhwc(x), to_nhwc(dy)
    if is_depthwise(weight_shape, groups):
        depthwise.backward_weight(source, gradient, geometry, out, bias_out)
        return out
    native = convolution_weight_native.backward_weight
    compute = implementation(x, _backward_weight_numpy, convolution_cuda.backward_weight, native)
    compute(source, gradient, geometry, groups, out, bias_out)
    return out


def _backward_weight_numpy(
    source: Array, gradient: Array, geometry: Geometry, groups: int, out: Array, bias_out: Array | None
) -> None:
    """Add up columnsᵀ · rows over the parts, and the rows for the bias."""
    (n, oh, ow, fn), (_, c_group, fh, fw) = gradient.shape, out.shape
    k, dtype = fh * fw * c_group, acc_dtype(source.dtype)
    channels, filters = group_ranges(source.shape[3], groups), group_ranges(fn, groups)
    total, bias_total = numpy.zeros((groups, k, fn // groups), dtype), numpy.zeros(fn, dtype)
    with threads.single_threaded_blas():
        for part in cut(n, oh, ow * k * dtype.itemsize, numpy):
            rows = gradient[part.images, part.rows].reshape(-1, fn).astype(dtype, copy=False)
            for group in range(groups):
                columns = part_columns_numpy(source, geometry, part, channels[group], dtype)
                total[group] += columns.T @ rows[:, filters[group]]
            bias_total += rows.sum(axis=0)
    by_filter = total.reshape(groups, fh, fw, c_group, fn // groups).transpose(0, 4, 3, 1, 2)
    out[...] = by_filter.reshape(out.shape)
    if bias_out is not None:
        bias_out[...] = bias_total
