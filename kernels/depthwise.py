"""Depthwise convolution: each filter sees one channel, so it is a weighted sum of shifted images, not a matrix product.

Sifre, "Rigid-motion scattering for image classification" (2014), section 6.2. All arrays are channels-last memory.
FN = C·M filters: channel c has the filters c·M … c·M + M - 1.
"""

from __future__ import annotations

import numpy

from backend import array_module, tuning, workspace
from backend.types import Array
from kernels import activations
from kernels.batch_statistics import Moments, lines_of
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.filters import taps_first
from kernels.core.geometry import Geometry
from kernels.core.launch import Kernel
from kernels.core.layout import target
from kernels.core.native import Function, sharers
from kernels.core.tiling import Part, cut
from kernels.sums import axis_sums, column_sums, sum_terms

_FORWARD_CUDA, _BACKWARD_INPUT_CUDA, _BACKWARD_WEIGHT_CUDA = (
    Kernel("depthwise.cu", name) for name in ("depthwise", "depthwise_backward_input", "depthwise_backward_weight")
)
_FORWARD, _BACKWARD_INPUT, _BACKWARD_WEIGHT, _TOTAL = (
    Function("depthwise.c", f"depthwise_{name}") for name in ("forward", "backward_input", "backward_weight", "total")
)
_MOST_PARTS, _PART_BYTES = 16, 1 << 18  # of the weight gradient: each adds up a partial sum


def forward(
    source: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    y: Array,
    positive: Array | None,
    measured: bool = False,
) -> Moments | None:
    """Write y (N, OH, OW, FN) for source (N, H, W, C), weight (FN, 1, FH, FW) and bias (FN,) or None.

    Args:
        positive: None, or array like ``y`` (bool): max(·, 0) follows, and where that is positive is written to it.
        measured: whether to return the moments of y's channels, where there is a kernel that takes them.
    """
    compute = implementation(source, _forward_numpy, _forward_cuda, _forward_native)
    return compute(source, weight, bias, geometry, y, positive, measured)


def _forward_numpy(
    source: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    y: Array,
    positive: Array | None,
    measured: bool,
) -> None:
    dtype = acc_dtype(source.dtype)
    filters = _by_tap(weight, source.shape[3], dtype)
    for part in _parts(y):
        # (n, H, W, C, 1) · (C, M) → (n, OH, OW, C, M)
        pixels, y_part = source[part.images][..., None], y[part.images]
        total = workspace.zeros((*y_part.shape[:3], *filters.shape[2:]), dtype)
        for tap in geometry.taps:
            product = pixels[:, tap.in_rows, tap.in_columns] * filters[tap.row, tap.column]
            total[:, tap.out_rows, tap.out_columns] += product
        if bias is not None:
            total += bias.reshape(filters.shape[2:])
        y_part[...] = total.reshape(y_part.shape)
        if positive is not None:
            activations.rectify(y_part, positive[part.images])


def _forward_cuda(
    source: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    y: Array,
    positive: Array | None,
    measured: bool,
) -> None:
    library, dtype, channels, fn = array_module(source), source.dtype, source.shape[3], y.shape[3]
    filters = _by_tap(weight, channels, acc_dtype(dtype))
    bias = library.empty(0, dtype) if bias is None else library.ascontiguousarray(bias, dtype)
    flags = library.empty(0, "uint8") if positive is None else positive.view("uint8")
    arrays, block = (source, filters, bias, y, flags), geometry.struct(channels)
    _FORWARD_CUDA(y.size, *arrays, y.size, block, fn, bias.size, flags.size)


def _forward_native(
    source: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    y: Array,
    positive: Array | None,
    measured: bool,
) -> Moments | None:
    (n, h, w, channels), (_, oh, ow, fn) = source.shape, y.shape
    weights, block, lines = _for_vectors(weight, channels, bias), geometry.block(channels), lines_of(y, measured)
    arrays, sizes = (source, weights, y, positive, *lines.arrays), (weights.size, *lines.sizes)
    line_bytes = (h * w * channels // oh + ow * fn) * y.itemsize
    _FORWARD.share(y.dtype, lines.blocks, lines.each * line_bytes, *arrays, block, n, fn, *sizes)
    return lines.moments


def backward_input(dy: Array, weight: Array, dx: Array, geometry: Geometry) -> None:
    """Write dx (N, H, W, C) for dy (N, OH, OW, FN) and weight (FN, 1, FH, FW)."""
    implementation(dy, _backward_input_numpy, _backward_input_cuda, _backward_input_native)(dy, weight, dx, geometry)


def _backward_input_numpy(dy: Array, weight: Array, dx: Array, geometry: Geometry) -> None:
    dtype = acc_dtype(dy.dtype)
    c, multiplier = dx.shape[3], len(weight) // dx.shape[3]
    filters = _by_tap(weight, c, dtype)
    for part in _parts(dy):
        gradient = dy[part.images].reshape(-1, *dy.shape[1:3], c, multiplier)
        total = workspace.zeros(dx[part.images].shape, dtype)
        for tap in geometry.taps:
            product = gradient[:, tap.out_rows, tap.out_columns] * filters[tap.row, tap.column]
            total[:, tap.in_rows, tap.in_columns] += axis_sums(product, 4)
        dx[part.images] = total


def _backward_input_cuda(dy: Array, weight: Array, dx: Array, geometry: Geometry) -> None:
    channels, fn = dx.shape[3], dy.shape[3]
    filters = _by_tap(weight, channels, acc_dtype(dy.dtype))
    _BACKWARD_INPUT_CUDA(dx.size, dy, filters, dx, dx.size, geometry.struct(channels), fn)


def _backward_input_native(dy: Array, weight: Array, dx: Array, geometry: Geometry) -> None:
    (n, h, w, channels), (_, oh, ow, fn) = dx.shape, dy.shape
    weights, block = _for_vectors(weight, channels), geometry.block(channels)

    row_bytes = (w * channels + oh * ow * fn // h) * dy.itemsize
    team = sharers(n * h, row_bytes)
    columns = numpy.empty((team, 5 * w), "int32")
    given = dy, weights, dx, columns, block, n, fn, weights.size, team
    _BACKWARD_INPUT.share(dy.dtype, n * h, row_bytes, *given)


def backward_weight(source: Array, dy: Array, geometry: Geometry, out: Array, bias_out: Array | None) -> None:
    """Write the weight's gradient (FN, 1, FH, FW) for source (N, H, W, C) and dy (N, OH, OW, FN).

    Args:
        bias_out: None, or array (FN,) for the bias's gradient.
    """
    compute = implementation(source, _backward_weight_numpy, _backward_weight_cuda, _backward_weight_native)
    compute(source, dy, geometry, out, bias_out)


def _backward_weight_numpy(source: Array, dy: Array, geometry: Geometry, out: Array, bias_out: Array | None) -> None:
    dtype = acc_dtype(source.dtype)
    c, fn = source.shape[3], dy.shape[3]
    if bias_out is not None:
        column_sums(dy.reshape(-1, fn), out=bias_out)
    pixels, gradient = source[..., None], dy.reshape(*dy.shape[:3], c, fn // c)
    out[...] = 0  # taps that only meet padding
    for tap in geometry.taps:
        product = pixels[:, tap.in_rows, tap.in_columns].astype(dtype, copy=False)
        product = product * gradient[:, tap.out_rows, tap.out_columns]
        out[:, 0, tap.row, tap.column] = column_sums(product.reshape(-1, fn))


def _backward_weight_cuda(source: Array, dy: Array, geometry: Geometry, out: Array, bias_out: Array | None) -> None:
    fn, (fh, fw) = dy.shape[3], geometry.kernel
    if bias_out is not None:
        column_sums(dy.reshape(-1, fn), out=bias_out)
    dtype = out.dtype if out.dtype == dy.dtype else acc_dtype(dy.dtype)
    total = workspace.empty((fh * fw, fn), dtype)
    shape = fh * fw, dy.size // max(fn, 1), fn
    sum_terms(_BACKWARD_WEIGHT_CUDA, (source, dy), shape, total, 1, geometry.struct(source.shape[3]))
    out[...] = total.reshape(fh, fw, fn, 1).transpose(2, 3, 0, 1)


def _backward_weight_native(source: Array, dy: Array, geometry: Geometry, out: Array, bias_out: Array | None) -> None:
    (n, oh, _, fn), channels, dtype = dy.shape, source.shape[3], acc_dtype(dy.dtype)
    size, block, touched = out.size, geometry.block(channels), source.nbytes + dy.nbytes
    most = tuning.PARTIAL_SUM_BYTES // (size * dtype.itemsize)
    parts = max(min(_MOST_PARTS, most, n * oh, touched // _PART_BYTES), 1)
    sums = workspace.empty(parts * size, dtype)
    bias_sums = None if bias_out is None else numpy.empty(parts * fn, dtype)
    arrays = source, dy, sums, bias_sums
    _BACKWARD_WEIGHT.share(dy.dtype, parts, touched // parts, *arrays, block, n, fn, parts)
    for partial_sums, total in ((sums, taps_first(out)), (bias_sums, bias_out)):
        if partial_sums is not None and total is not None:
            given = total.dtype if acc_dtype(total.dtype) == dtype else dtype
            into = target(total, given)
            _TOTAL(given, partial_sums, into, total.size, fn, channels, parts)
            if into is not total:
                total[...] = into


def _by_tap(weight: Array, channels: int, dtype: numpy.dtype) -> Array:
    """Return (FN, 1, FH, FW) as (FH, FW, C, M), contiguous."""
    fn, _, fh, fw = weight.shape
    filters = weight.reshape(channels, fn // channels, fh, fw).transpose(2, 3, 0, 1)
    return array_module(weight).ascontiguousarray(filters, dtype=dtype)


def _for_vectors(weight: Array, channels: int, bias: Array | None = None) -> Array:
    """Return filters and bias in the dtype of sums, as the C kernels read them: (FH, FW, M, C), (M, C), 16 zeros."""
    fn, _, fh, fw = weight.shape
    by_multiple = channels, fn // channels
    numbers = numpy.zeros((fh * fw + 1) * fn + 16, acc_dtype(weight.dtype))
    filters = numbers[: fh * fw * fn].reshape(fh, fw, fn // channels, channels)
    filters[...] = weight.reshape(*by_multiple, fh, fw).transpose(2, 3, 1, 0)
    if bias is not None:
        numbers[filters.size : -16].reshape(by_multiple[::-1])[...] = bias.reshape(by_multiple).T
    return numbers


def _parts(y: Array) -> list[Part]:
    n, oh, ow, fn = y.shape
    return cut(n, 1, oh * ow * fn * acc_dtype(y.dtype).itemsize, numpy)
