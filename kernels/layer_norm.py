"""Layer normalization over the rows of a matrix (Ba, Kiros and Hinton, "Layer normalization", 2016), and group
normalization over groups of an image's channels (Wu and He, "Group normalization", ECCV 2018).

Both centre and scale the numbers of one sample, so that neither knows a batch, or anything that runs along with it.
"""

from __future__ import annotations

import numpy

from backend import array_module, profiling, require_active, require_same_device, workspace
from backend.checks import LARGEST_EPSILON, real, whole
from backend.types import Array
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel
from kernels.core.layout import as_nchw, to_nhwc
from kernels.core.native import Function
from kernels.core.tiling import row_group
from kernels.sums import axis_means, axis_sums, sum_terms, total_of_parts

_FORWARD, _BACKWARD = (Function("layer_norm.c", name) for name in ("layer_norm", "layer_norm_backward"))
_FORWARD_CUDA, _BACKWARD_CUDA, _PRODUCTS_CUDA = (
    Kernel("layer_norm.cu", name) for name in ("layer_norm", "layer_norm_backward", "layer_norm_products")
)
_PART_ROWS = 32  # whose sums are one part of dγ and dβ


@profiling.operation
def layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """Compute y = γ·(x - μ) / √(σ² + ε) + β with μ and σ² those of each row.

    Args:
        x: (M, D).
        gamma: (D,).
        beta: (D,).
        epsilon: ε.

    Returns:
        y (M, D) in the dtype of ``x``; and for the backward the normalized rows (M, D) and 1 / √(σ² + ε) (M, 1), both
        in the dtype of sums.
    """
    require_same_device(x, gamma, beta)
    require_active(x)
    epsilon = real("epsilon", epsilon, least=0, most=LARGEST_EPSILON)
    if x.ndim != 2 or not gamma.shape == beta.shape == x.shape[1:]:
        raise ValueError(f"needs x (M, D), gamma (D,) and beta (D,), got {x.shape}, {gamma.shape} and {beta.shape}")
    if not x.size:
        return _layer_norm(x, gamma, beta, epsilon)
    compute = implementation(x, _layer_norm, _layer_norm_cuda, _layer_norm_native)
    return compute(x, gamma, beta, epsilon)


def _layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    normalized, inverse = _standardize(x, 1, epsilon)
    return _affine(normalized, gamma, beta, x.dtype), normalized, inverse


def _layer_norm_native(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    x, dtype, shape = numpy.ascontiguousarray(x), acc_dtype(x.dtype), x.shape
    gamma, beta = (numpy.ascontiguousarray(vector, dtype) for vector in (gamma, beta))
    y, normalized = workspace.empty(shape, x.dtype), workspace.empty(shape, dtype)
    inverse = numpy.empty((len(x), 1), dtype)
    arrays = x, gamma, beta, y, normalized, inverse
    item_bytes = 3 * shape[1] * x.itemsize
    _FORWARD.share(x.dtype, len(x), item_bytes, *arrays, epsilon, *shape)
    return y, normalized, inverse


def _layer_norm_cuda(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    library, dtype = array_module(x), acc_dtype(x.dtype)
    x, gamma, beta = (library.ascontiguousarray(array, x.dtype) for array in (x, gamma, beta))
    y, normalized = library.empty(x.shape, x.dtype), library.empty(x.shape, dtype)
    inverse, group = library.empty((len(x), 1), dtype), row_group(x.shape[1])
    _FORWARD_CUDA(len(x) * group, x, gamma, beta, y, normalized, inverse, *x.shape, group, epsilon)
    return y, normalized, inverse


@profiling.operation
def layer_norm_backward(dy: Array, normalized: Array, inverse: Array, gamma: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of ``layer_norm``: dx (M, D), dtype of ``dy``; dgamma and dbeta (D,), dtype of sums."""
    require_same_device(dy, normalized, inverse, gamma)
    require_active(dy)
    if not (dy.ndim == 2 and dy.shape == normalized.shape and gamma.shape == dy.shape[1:] and len(inverse) == len(dy)):
        given = f"{dy.shape}, {normalized.shape}, {inverse.shape} and {gamma.shape}"
        raise ValueError(f"needs dy and normalized (M, D), inverse (M, 1) and gamma (D,), got {given}")
    if not dy.size or normalized.dtype != acc_dtype(dy.dtype):
        return _layer_norm_backward(dy, normalized, inverse, gamma)
    compute = implementation(dy, _layer_norm_backward, _layer_norm_backward_cuda, _layer_norm_backward_native)
    return compute(dy, normalized, inverse, gamma)


def _layer_norm_backward(dy: Array, normalized: Array, inverse: Array, gamma: Array) -> tuple[Array, Array, Array]:
    rows = dy.astype(normalized.dtype, copy=False)
    dgamma, dbeta = axis_sums(rows * normalized, 0), axis_sums(rows, 0)
    dx = _standardize_backward(rows * gamma, normalized, inverse, 1)
    return dx.astype(dy.dtype, copy=False), dgamma, dbeta


def _layer_norm_backward_native(
    dy: Array, normalized: Array, inverse: Array, gamma: Array
) -> tuple[Array, Array, Array]:
    dtype, (rows, size), parts = normalized.dtype, dy.shape, -(-len(dy) // _PART_ROWS)
    dy, normalized = numpy.ascontiguousarray(dy), numpy.ascontiguousarray(normalized)
    inverse, gamma = (numpy.ascontiguousarray(vector, dtype) for vector in (inverse, gamma))
    dx = workspace.empty(dy.shape, dy.dtype)
    products, sums = (numpy.empty((parts, size), dtype) for _ in range(2))
    arrays, sizes = (dy, normalized, inverse, gamma, dx, products, sums), (rows, size, parts, _PART_ROWS)
    _BACKWARD.share(dy.dtype, parts, 3 * _PART_ROWS * size * dy.itemsize, *arrays, *sizes)
    return dx, total_of_parts(products, dy.dtype), total_of_parts(sums, dy.dtype)


def _layer_norm_backward_cuda(dy: Array, normalized: Array, inverse: Array, gamma: Array) -> tuple[Array, Array, Array]:
    library, dtype, (rows, size) = array_module(dy), normalized.dtype, dy.shape
    dy, normalized = library.ascontiguousarray(dy), library.ascontiguousarray(normalized)
    inverse, gamma = library.ascontiguousarray(inverse, dtype), library.ascontiguousarray(gamma, dy.dtype)
    dx, dgamma, group = library.empty(dy.shape, dy.dtype), library.empty(size, dtype), row_group(size)
    _BACKWARD_CUDA(rows * group, dy, normalized, inverse, gamma, dx, rows, size, group)
    sum_terms(_PRODUCTS_CUDA, (dy, normalized), (1, rows, size), dgamma, 1)
    return dx, dgamma, axis_sums(dy, 0)


@profiling.operation
def group_norm(x: Array, gamma: Array, beta: Array, groups: int, epsilon: float) -> tuple[Array, Array, Array]:
    """Compute y = γ·(x - μ) / √(σ² + ε) + β with μ and σ² those of all pixels of each image's groups of channels.

    Args:
        x: (N, C, H, W).
        gamma: (C,).
        beta: (C,).
        groups: how many groups of C / groups neighbouring channels; divides C.
        epsilon: ε.

    Returns:
        y (N, C, H, W) in the dtype of ``x``, channels-last memory; and for the backward the normalized numbers
        (N, H·W, groups, C / groups) and 1 / √(σ² + ε) (N, 1, groups, 1), both in the dtype of sums.

    Raises:
        ValueError: the groups do not divide the channels.
    """
    require_same_device(x, gamma, beta)
    require_active(x)
    n, c, h, w = x.shape
    groups, epsilon = whole("groups", groups, 1), real("epsilon", epsilon, least=0, most=LARGEST_EPSILON)
    if c % groups:
        raise ValueError(f"{groups} groups do not divide {c} channels")
    grouped = (groups, c // groups)
    normalized, inverse = _standardize(to_nhwc(x).reshape(n, h * w, *grouped), (1, 3), epsilon)
    y = _affine(normalized, gamma.reshape(grouped), beta.reshape(grouped), x.dtype)
    return as_nchw(y.reshape(n, h, w, c)), normalized, inverse


@profiling.operation
def group_norm_backward(dy: Array, normalized: Array, inverse: Array, gamma: Array) -> tuple[Array, Array, Array]:
    """Return ``group_norm``'s gradients: dx (N, C, H, W), dtype of ``dy``; dgamma, dbeta (C,), dtype of sums."""
    require_same_device(dy, normalized, inverse, gamma)
    require_active(dy)
    n, c, h, w = dy.shape
    values = to_nhwc(dy).reshape(normalized.shape).astype(normalized.dtype, copy=False)
    dgamma, dbeta = axis_sums(values * normalized, (0, 1)), axis_sums(values, (0, 1))
    dx = _standardize_backward(values * gamma.reshape(normalized.shape[2:]), normalized, inverse, (1, 3))
    return as_nchw(dx.astype(dy.dtype, copy=False).reshape(n, h, w, c)), dgamma.reshape(c), dbeta.reshape(c)


def _standardize(x: Array, axes: int | tuple[int, ...], epsilon: float) -> tuple[Array, Array]:
    """Return (x - μ) / √(σ² + ε), with mean and variance along some axes, and 1 / √(σ² + ε), in the dtype of sums.

    The variance is that of the differences, since E[x²] - E[x]² would cancel. No numbers have neither; 1 / σ is 1 then.
    """
    library = array_module(x)
    values = x.astype(acc_dtype(x.dtype), copy=False)
    if not values.size:
        return values.copy(), axis_sums(values, axes, keepdims=True) + 1
    normalized = values - axis_means(values, axes, keepdims=True)
    variance = axis_means(normalized * normalized, axes, keepdims=True)
    inverse = 1 / library.sqrt(variance + epsilon)
    normalized *= inverse
    return normalized, inverse


def _standardize_backward(dy: Array, normalized: Array, inverse: Array, axes: int | tuple[int, ...]) -> Array:
    """Return the gradient of ``_standardize`` for that of its output: (dy - mean(dy) - x̂·mean(dy·x̂)) / σ."""
    if not dy.size:
        return dy
    along = axis_means(dy * normalized, axes, keepdims=True)
    dx = dy - axis_means(dy, axes, keepdims=True) - normalized * along
    dx *= inverse
    return dx


def _affine(normalized: Array, gamma: Array, beta: Array, dtype: numpy.dtype) -> Array:
    y = normalized * gamma
    y += beta
    return y.astype(dtype, copy=False)
