"""Convolution on a CUDA GPU: as an implicit GEMM on tensor cores where these can do it, else by im2col and cuBLAS.

``refusal`` of ``kernels.implicit_gemm`` makes the choice, and says the reason.
"""

from __future__ import annotations

from backend import array_module, blas, tuning, workspace
from backend.types import Array
from kernels import activations, depthwise, implicit_gemm
from kernels.batch_statistics import Moments
from kernels.col2im import add_windows
from kernels.core.dtypes import acc_dtype
from kernels.core.filters import filter_matrices, flipped, group_ranges, is_depthwise, taps_first
from kernels.core.geometry import Geometry
from kernels.core.layout import target
from kernels.core.tiling import Part, cut, ranges
from kernels.gemm import matmul_part
from kernels.im2col import part_columns_cuda
from kernels.sums import column_sums


def forward(
    source: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    groups: int,
    y: Array,
    positive: Array | None,
    measured: bool = False,
) -> Moments | None:
    """Compute ``y`` (N, OH, OW, FN) of ``source`` (N, H, W, C); with ``positive``, a ReLU follows.

    With ``measured``, return the moments of y's channels, if it is an implicit GEMM.
    """
    if implicit_gemm.refusal(y.dtype, weight.shape, geometry, groups):
        _forward_by_columns(source, weight, bias, geometry, groups, y)
        if positive is not None:
            activations.rectify(y, positive)
        return None
    filters, bias = _contiguous(taps_first(weight)), None if bias is None else _contiguous(bias)
    return implicit_gemm.forward(source, filters, bias, geometry, groups, y, positive, measured)


def backward_input(gradient: Array, weight: Array, geometry: Geometry, groups: int, dx: Array) -> None:
    """Compute ``dx`` (N, H, W, C) of ``gradient`` (N, OH, OW, FN).

    Without tensor cores it is, at stride 1, itself a convolution, of the gradient with the flipped filters, which sums
    in a product what the general way (a product, then col2im) adds tap by tap.
    """
    if not implicit_gemm.refusal(dx.dtype, weight.shape, geometry, groups):
        implicit_gemm.backward_input(gradient, _contiguous(taps_first(weight)), geometry, groups, dx)
    elif geometry.mirrored is None:
        _backward_input_by_columns(gradient, weight, geometry, groups, dx)
    else:
        filters = flipped(weight, groups)
        if is_depthwise(filters.shape, groups):
            depthwise.forward(gradient, filters, None, geometry.mirrored, dx, None)
        else:
            forward(gradient, filters, None, geometry.mirrored, groups, dx, None)


def backward_weight(
    source: Array, gradient: Array, geometry: Geometry, groups: int, out: Array, bias_out: Array | None
) -> None:
    """Compute the gradient of the filters into ``out``, and that of the bias into ``bias_out``."""
    if implicit_gemm.refusal(source.dtype, out.shape, geometry, groups):
        if bias_out is not None:
            column_sums(gradient.reshape(-1, len(out)), out=bias_out)
        _backward_weight_by_columns(source, gradient, geometry, groups, out)
        return
    filters = taps_first(out)
    dw = target(filters, source.dtype)
    dbias = None if bias_out is None else target(bias_out, source.dtype)
    implicit_gemm.backward_weight(source, gradient, geometry, groups, dw, dbias)
    for array, computed in ((filters, dw), (bias_out, dbias)):
        if array is not None and computed is not array:
            array[...] = computed


def _contiguous(array: Array) -> Array:
    return array_module(array).ascontiguousarray(array)


def _forward_by_columns(
    source: Array, weight: Array, bias: Array | None, geometry: Geometry, groups: int, y: Array
) -> None:
    fn, channels = len(weight), group_ranges(source.shape[3], groups)
    of_groups = filter_matrices(weight, groups, y.dtype)  # cuBLAS sums float16 in float32 and rounds once
    for part in _parts(y, len(of_groups[0])):
        out = part.of_output(y).reshape(-1, fn)
        for group, matrix in enumerate(of_groups):
            columns = part_columns_cuda(source, geometry, part, channels[group])
            matmul_part(columns, matrix, out=_columns_of(out, group, groups))
    if bias is not None:
        y += bias


def _backward_input_by_columns(gradient: Array, weight: Array, geometry: Geometry, groups: int, dx: Array) -> None:
    (n, _, _, c), (fh, fw), (oh, ow), fn = dx.shape, geometry.kernel, geometry.output, len(weight)
    c_group, f_group = c // groups, fn // groups
    dtype = acc_dtype(dx.dtype)  # these products are not results yet, col2im adds them up
    channel_bytes = oh * ow * fh * fw * dtype.itemsize
    # Windows overlap, so an image is not cut into bands; where its columns are too many, some channels at a time.
    strips = ranges(c_group, min(-(-c_group * channel_bytes // tuning.COLUMN_BYTES["cupy"]), c_group))
    of_groups = zip(filter_matrices(weight, groups, dtype), group_ranges(fn, groups), strict=True)
    matrices = []
    for group, (matrix, filters) in enumerate(of_groups):
        by_channel = matrix.reshape(fh * fw, c_group, f_group)
        for first, last in strips:
            channels = slice(group * c_group + first, group * c_group + last)
            matrices.append((channels, filters, by_channel[:, first:last].reshape(-1, f_group).T))
    widest = max((last - first for first, last in strips), default=0)
    for part in cut(n, 1, channel_bytes * widest, array_module(dx)):
        rows = gradient[part.images].reshape(-1, fn).astype(dtype, copy=False)
        for channels, filters, matrix in matrices:
            columns = workspace.empty((len(rows), matrix.shape[1]), dtype)
            matmul_part(rows[:, filters], matrix, out=columns)
            add_windows(columns, dx[part.images, :, :, channels], geometry)


def _backward_weight_by_columns(source: Array, gradient: Array, geometry: Geometry, groups: int, out: Array) -> None:
    fn, c_group, fh, fw = out.shape
    parts = _parts(gradient, fh * fw * c_group)
    if not parts:
        out.fill(0)
        return
    channels = group_ranges(source.shape[3], groups)
    totals = workspace.empty((groups, fh * fw * c_group, fn // groups), acc_dtype(out.dtype))
    for index, part in enumerate(parts):
        rows = part.of_output(gradient).reshape(-1, fn)
        for group in range(groups):
            columns = part_columns_cuda(source, geometry, part, channels[group])
            # The products add up the parts, in float32 for float16.
            blas.gemm(columns.T, _columns_of(rows, group, groups), totals[group], beta=float(index > 0))
    by_filter = totals.reshape(groups, fh, fw, c_group, -1).transpose(0, 4, 3, 1, 2)
    out.reshape(by_filter.shape)[...] = by_filter


def _parts(output: Array, k: int) -> list[Part]:
    """Return the parts of a batch whose columns, k for each pixel of ``output`` (N, OH, OW, C), are made at a time."""
    n, oh, ow, _ = output.shape
    return cut(n, oh, ow * k * output.dtype.itemsize, array_module(output))


def _columns_of(matrix: Array, group: int, groups: int) -> Array:
    """Return the columns of a matrix that belong to one group."""
    return matrix if groups == 1 else matrix[:, group_ranges(matrix.shape[1], groups)[group]]
