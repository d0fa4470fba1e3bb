"""The gradients of batch normalization, and of a ReLU behind it.

On a GPU they are two launches: sums over ranges of rows, and a pass that puts them together and writes dx.
"""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module, profiling, require_active, require_same_device, workspace
from backend.types import Array
from kernels.batch_norm import factors, normalized
from kernels.batch_statistics import narrow, pass_tiling, tiling_of
from kernels.core.columns import columns
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.native import Function
from kernels.masking import masked

_PRODUCTS, _PARAMETER_GRADIENTS, _BACKWARD = (
    Kernel("batch_norm_backward.cu", f"batch_norm_{name}") for name in ("products", "parameter_gradients", "backward")
)
_SUMS, _JOINED, _GRADIENT = (
    Function("batch_norm_backward.c", f"batch_norm_{name}") for name in ("products", "parameter_gradients", "gradient")
)


@profiling.operation
def normalize_backward(
    dy: Array,
    x: Array,
    mean: Array,
    inverse: Array,
    gamma: Array,
    beta: Array | None = None,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array, Array]:
    """Return the gradients of ``normalize`` where mean and variance are those of ``x`` itself.

    With x̂ = (x - mean)·inverse: dγ = Σ dy·x̂, dβ = Σ dy, dx = γ·inverse·(dy - dβ/M - x̂·dγ/M); the paper's
    section 3 chain rule, collected.

    Args:
        dy: (M, C), the gradient of y; with ``beta`` that of max(y, 0).
        x: (M, C).
        mean: (C,).
        inverse: (C,).
        gamma: (C,).
        beta: (C,), by which y is computed again to see where it is above 0; or None.
        out: arrays for dgamma and dbeta (C,), of any floating dtype, or None for new ones.

    Returns:
        dx (M, C) in the dtype of ``dy``; dgamma and dbeta (C,), ``out`` or in the dtype of sums.

    Raises:
        ValueError: the shapes do not fit.
    """
    _require_shapes(dy, x, mean, inverse, gamma)
    require_same_device(dy, x, mean, inverse, gamma, *([] if beta is None else [beta]), *(out or ()))
    require_active(x)
    compute = implementation(x, _normalize_backward_numpy, _normalize_backward_cuda, _normalize_backward_native)
    dx, dgamma, dbeta = compute(dy, x, mean, inverse, gamma, beta, out)
    if out is None:
        return dx, dgamma, dbeta
    for array, gradient in zip(out, (dgamma, dbeta), strict=True):
        if array is not gradient:
            array[...] = gradient
    return dx, *out


def _require_shapes(dy: Array, x: Array, *vectors: Array) -> None:
    if dy.shape != x.shape:
        raise ValueError(f"dy must have the shape of x, {x.shape}, got {dy.shape}")
    if any(vector.shape != x.shape[1:] for vector in vectors):
        shapes = ", ".join(str(vector.shape) for vector in vectors)
        raise ValueError(f"mean, inverse and gamma must have shape {x.shape[1:]}, got {shapes}")


def positive(x: Array, mean: Array, inverse: Array, gamma: Array, beta: Array) -> Array:
    """Return where the normalized ``x`` (M, C), in its dtype, is above 0: bool (M, C)."""
    return normalized(x, mean, inverse, gamma, beta) > 0


def _normalize_backward_numpy(
    dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array, beta: Array | None, out: Any
) -> tuple[Array, Array, Array]:
    if beta is not None:
        dy = masked(dy, positive(x, mean, inverse, gamma, beta))
    dgamma, dbeta = _parameter_gradients_numpy(dy, x, mean, inverse)
    count = max(len(x), 1)
    dx = (dy - (x - mean) * (inverse * dgamma / count) - dbeta / count) * (inverse * gamma)
    return dx.astype(dy.dtype, copy=False), dgamma, dbeta


def _normalize_backward_native(
    dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array, beta: Array | None, out: Any
) -> tuple[Array, Array, Array]:
    upstream, x = numpy.ascontiguousarray(dy, x.dtype), numpy.ascontiguousarray(x)
    forward, relu = (mean, inverse * gamma, 0 if beta is None else beta), int(beta is not None)
    dgamma, dbeta = _sums_native(upstream, x, forward, inverse, relu)
    cut, count, dx = columns(*x.shape), max(len(x), 1), workspace.empty(x.shape, x.dtype)
    own_factors = factors((*forward, inverse * dgamma / count, dbeta / count), acc_dtype(x.dtype), cut)
    arrays, sizes = (upstream, x, own_factors, dx), (relu, x.size, cut.width, cut.block_rows)
    _GRADIENT.share(x.dtype, cut.blocks, 3 * cut.block_size * x.itemsize, *arrays, *sizes)
    return dx.astype(dy.dtype, copy=False), dgamma, dbeta


def _normalize_backward_cuda(
    dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array, beta: Array | None, out: Any
) -> tuple[Array, Array, Array]:
    library, dtype, own = array_module(x), acc_dtype(x.dtype), pass_tiling(*x.shape)
    arrays, relu = _contiguous(dy, x, mean, inverse, gamma, gamma if beta is None else beta), int(beta is not None)
    sums = _products(*arrays, relu)
    dgamma, dbeta = (
        array if array is not None and array.dtype == dtype and array.flags.c_contiguous
        else library.empty(x.shape[1], dtype) for array in out or (None, None)
    )  # fmt: skip
    dx = library.empty(x.shape, x.dtype)
    _BACKWARD(
        own.blocks * block_size(), *arrays, *sums, dgamma, dbeta, dx, own.blocks, *x.shape, own.width, own.range_rows,
        len(sums[0]), relu,
    )  # fmt: skip
    return dx.astype(dy.dtype, copy=False), dgamma, dbeta


@profiling.operation
def normalize_backward_fixed(
    dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array
) -> tuple[Array, Array, Array]:
    """Return the gradients of ``normalize`` where mean and variance are constants (evaluation); errors as above."""
    _require_shapes(dy, x, mean, inverse, gamma)
    require_same_device(dy, x, mean, inverse, gamma)
    require_active(x)
    compute = implementation(x, _parameter_gradients_numpy, _parameter_gradients_cuda, _parameter_gradients_native)
    dgamma, dbeta = compute(dy, x, mean, inverse)
    return input_gradient_fixed(dy, inverse, gamma), dgamma, dbeta


@profiling.operation
def input_gradient_fixed(dy: Array, inverse: Array, gamma: Array) -> Array:
    """Return the first gradient of ``normalize_backward_fixed`` alone, for frozen parameters."""
    return (dy * (gamma * inverse)).astype(dy.dtype, copy=False)


def _parameter_gradients_numpy(dy: Array, x: Array, mean: Array, inverse: Array) -> tuple[Array, Array]:
    """Return dγ and dβ: (C,) in the dtype of sums."""
    dgamma, dbeta = ((x - mean) * dy).sum(axis=0, dtype=numpy.float64) * inverse, dy.sum(axis=0, dtype=numpy.float64)
    return dgamma.astype(mean.dtype), dbeta.astype(mean.dtype)


def _parameter_gradients_native(dy: Array, x: Array, mean: Array, inverse: Array) -> tuple[Array, Array]:
    dy, x = numpy.ascontiguousarray(dy, x.dtype), numpy.ascontiguousarray(x)
    return _sums_native(dy, x, (mean, 0, 0), inverse, 0)


def _sums_native(dy: Array, x: Array, forward: tuple[Any, ...], inverse: Array, relu: int) -> tuple[Array, Array]:
    dtype, channels, cut = acc_dtype(x.dtype), x.shape[1], columns(*x.shape)
    products, sums = (numpy.empty((cut.parts, channels), dtype) for _ in range(2))
    arrays = dy, x, factors((*forward, 0, 0), dtype, cut), products, sums
    sizes = relu, sums.size, x.size, cut.width, cut.block_rows
    _SUMS.share(x.dtype, cut.blocks, 2 * cut.block_size * x.itemsize, *arrays, *sizes)
    dgamma, dbeta = (numpy.empty(channels, dtype) for _ in range(2))
    _JOINED(x.dtype, products, sums, numpy.ascontiguousarray(inverse, dtype), dgamma, dbeta, cut.parts, channels)
    return dgamma, dbeta


def _parameter_gradients_cuda(dy: Array, x: Array, mean: Array, inverse: Array) -> tuple[Array, Array]:
    library, dtype, channels = array_module(x), acc_dtype(x.dtype), x.shape[1]
    gamma = library.empty(channels, x.dtype)  # its numbers do not count without a ReLU
    dy, x, mean, inverse, *_ = arrays = _contiguous(dy, x, mean, inverse, gamma, gamma)
    products, sums = _products(*arrays, 0)
    dgamma, dbeta = (library.empty(channels, dtype) for _ in range(2))
    blocks, width = narrow(channels, tiling_of(*x.shape).width)
    _PARAMETER_GRADIENTS(
        blocks * block_size(), products, sums, inverse, dgamma, dbeta, blocks, channels, width, len(products)
    )
    return dgamma, dbeta


def _products(
    dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array, beta: Array, relu: int
) -> tuple[Array, Array]:
    """Return each range's sums of dy·(x - mean) and of dy: (ranges, C), on the device."""
    library, dtype = array_module(x), acc_dtype(x.dtype)
    width, range_rows, ranges, blocks = tiling_of(*x.shape)
    products, sums = (library.empty((ranges, x.shape[1]), dtype) for _ in range(2))
    arrays = (dy, x, mean, inverse, gamma, beta)
    _PRODUCTS(blocks * block_size(), *arrays, products, sums, blocks, *x.shape, width, range_rows, relu)
    return products, sums


def _contiguous(
    dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array, beta: Array
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Return the arrays as the kernels take them, copied only where strides or a dtype do not fit."""
    copy, own, dtype = array_module(x).ascontiguousarray, x.dtype, acc_dtype(x.dtype)
    return copy(dy, own), copy(x), copy(mean, dtype), copy(inverse, dtype), copy(gamma, own), copy(beta, own)
