"""Convolution (cross-correlation, as the field calls it): matrix products over channels-last memory.

With pixels as rows, im2col's columns of an image by the filters, ``columns (pixels, FH·FW·C) @ W (FH·FW·C, FN)``, are
the output itself. NumPy computes it so, one image at a time: the columns of a batch would take FH·FW times its memory.
C kernels (``kernels.convolution_native``) and GPUs with tensor cores (``kernels.convolution_cuda``) make no columns.
Groups split the channels; one channel a group (depthwise) has its own file, since it is not a matrix product.

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
from kernels import activations, convolution_cuda, convolution_native, convolution_weight_native, depthwise
from kernels.batch_statistics import Moments
from kernels.col2im import add_windows
from kernels.core.checks import check_convolution
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.filters import filter_matrices, group_ranges, is_depthwise
from kernels.core.geometry import Geometry
from kernels.core.layout import as_nchw, to_nhwc
from kernels.core.window import Window
from kernels.im2col import im2col_numpy
from kernels.sums import column_sums

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
        relu: whether max(·, 0) follows.

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
    """Do what ``convolution`` does, and measure its output for a batch normalization on the way.

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
    dtype = acc_dtype(y.dtype)  # there is no half-precision BLAS: float16 is rounded once, after the bias
    of_groups = _of_groups(weight, source.shape[3], groups, dtype)
    with threads.single_threaded_blas():
        for image, out in zip(source, y, strict=True):
            for matrix, channels, filters in of_groups:
                product = im2col_numpy(image[None, ..., channels], geometry, "HWC") @ matrix
                if bias is not None:
                    product += bias[filters]
                out[..., filters] = product.reshape(*geometry.output, -1)
    if positive is not None:
        activations.rectify(y, positive)


def _of_groups(weight: Array, channels: int, groups: int, dtype: numpy.dtype) -> list[tuple[Array, slice, slice]]:
    """Return for each group its filters (FH·FW·C/groups, FN/groups), and their places among channels and filters."""
    matrices = filter_matrices(weight, groups, dtype)
    return list(zip(matrices, group_ranges(channels, groups), group_ranges(len(weight), groups), strict=True))


@profiling.operation
def convolution_backward_input(dy: Array, weight: Array, input_shape: Shape, window: Window, groups: int = 1) -> Array:
    """Return the gradient of ``convolution`` with respect to ``x``.

    Each pixel's gradient times the filters is that of its window, and col2im adds up what windows share.

    Args:
        dy: (N, FN, OH, OW).
        weight: (FN, C / groups, FH, FW).
        input_shape: (N, C, H, W) of ``x``.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``dy``. Kernels may multiply filters by zeros beyond the border of
        ``dy``: infinity or NaN in a filter makes NaN of more pixels then.

    Raises:
        ValueError: the shape of ``dy`` is not that of the output.
    """
    groups = whole("groups", groups, 1)
    geometry = check_convolution(window, groups, input_shape, dy=dy, weight=weight)
    n, c, h, w = input_shape
    gradient, dx = to_nhwc(dy), workspace.empty((n, h, w, c), dy.dtype)
    if is_depthwise(weight.shape, groups):
        depthwise.backward_input(gradient, weight, dx, geometry)
    else:
        native = convolution_native.backward_input
        compute = implementation(dy, _backward_input_numpy, convolution_cuda.backward_input, native)
        compute(gradient, weight, geometry, groups, dx)
    return as_nchw(dx)


def _backward_input_numpy(gradient: Array, weight: Array, geometry: Geometry, groups: int, dx: Array) -> None:
    of_groups = _of_groups(weight, dx.shape[3], groups, acc_dtype(dx.dtype))
    with threads.single_threaded_blas():
        for pixels, image in zip(gradient, dx, strict=True):
            for matrix, channels, filters in of_groups:
                rows = pixels[..., filters].reshape(-1, matrix.shape[1])
                add_windows(rows @ matrix.T, image[None, ..., channels], geometry)


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
    (fn, c_group, fh, fw), dtype = out.shape, acc_dtype(source.dtype)
    channels, filters = group_ranges(source.shape[3], groups), group_ranges(fn, groups)
    total = numpy.zeros((groups, fh * fw * c_group, fn // groups), dtype)
    with threads.single_threaded_blas():
        for image, pixels in zip(source, gradient, strict=True):
            for group in range(groups):
                rows = pixels[..., filters[group]].reshape(-1, fn // groups)
                columns = im2col_numpy(image[None, ..., channels[group]], geometry, "HWC")
                total[group] += numpy.matmul(columns.T, rows, dtype=dtype)
    by_filter = total.reshape(groups, fh, fw, c_group, fn // groups).transpose(0, 4, 3, 1, 2)
    out[...] = by_filter.reshape(out.shape)
    if bias_out is not None:
        column_sums(gradient.reshape(-1, fn), out=bias_out)
