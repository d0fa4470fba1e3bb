"""Batch normalization over the columns of a matrix (Ioffe and Szegedy, "Batch normalization", ICML 2015).

For images the matrix is the channels-last memory, pixels by channels; the caller makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from backend import array_module, profiling, require_active, require_same_device, workspace
from backend.checks import LARGEST_EPSILON, real
from backend.types import Array
from kernels.activations import rectify
from kernels.batch_statistics import Moments, fewer, joined, moments, move_running, pass_tiling, statistics
from kernels.core.columns import Columns, columns
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.layout import target
from kernels.core.native import Function

_NORMALIZE, _FORWARD, _FORWARD_ADDED = (
    Kernel("batch_norm.cu", f"batch_norm_{name}") for name in ("normalize", "forward", "forward_added")
)
_NATIVE = Function("batch_norm.c", "batch_norm_normalize")


@profiling.operation
def batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_variance: Array,
    epsilon: float,
    momentum: float,
    relu: bool = False,
    bypass: Array | None = None,
    measured: Moments | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """Normalize a batch by its own statistics, and move the running ones: momentum·running + (1 - momentum)·batch.

    It is ``batch_statistics`` and ``normalize``, the same bits on the CPU, in two launches on a GPU.

    Args:
        x: (M, C), M > 0.
        gamma: (C,).
        beta: (C,).
        running_mean: (C,) in the dtype of sums; changed.
        running_variance: (C,) in the dtype of sums; changed.
        epsilon: ε.
        momentum: weight of the old running statistics, from 0 to 1.
        relu: apply max(·, 0) at the end.
        bypass: (M, C), added before that; only with ``relu``.
        measured: moments of ``x``, if the operation that made it has left them: ``x`` is not read for them.

    Returns:
        y (M, C) in the dtype of ``x``; mean and 1 / √(variance + ε) (C,) in the dtype of sums; and with ``relu`` where
        y is above 0, bool (M, C), or None where ``normalize_backward`` computes that faster than it reads it.
    """
    given = [] if bypass is None else [bypass]
    of_x = [] if measured is None else [measured.means, measured.squares]
    require_same_device(x, gamma, beta, running_mean, running_variance, *given, *of_x)
    require_active(x, "x")
    epsilon = real("epsilon", epsilon, least=0, most=LARGEST_EPSILON)
    momentum = real("momentum", momentum, least=0, most=1)
    if not len(x):
        raise ValueError(f"x must have rows to take statistics of, got shape {x.shape}")
    if not gamma.shape == beta.shape == running_mean.shape == running_variance.shape == x.shape[1:]:
        raise ValueError(f"gamma, beta and running statistics must have shape {x.shape[1:]}")
    if given and not (relu and bypass is not None and bypass.shape == x.shape and bypass.dtype == x.dtype):
        raise ValueError(f"a bypass needs relu, and the shape and dtype of x, {x.dtype}{list(x.shape)}")
    if measured is not None and (measured.rows, measured.means.shape[1]) != x.shape:
        raise ValueError(f"moments of {x.shape} are needed, got those of {(measured.rows, measured.means.shape[1])}")
    compute = implementation(x, _batch_norm_cpu, _batch_norm_cuda)
    return compute(x, gamma, beta, (running_mean, running_variance), epsilon, momentum, relu, bypass, measured)


def _batch_norm_cpu(
    x: Array,
    gamma: Array,
    beta: Array,
    running: tuple[Array, Array],
    epsilon: float,
    momentum: float,
    relu: bool,
    bypass: Array | None,
    measured: Moments | None,
) -> tuple[Array, Array, Array, Array | None]:
    mean, variance = statistics(x) if measured is None else joined(measured)
    move_running(running, (mean, variance), momentum)
    positive = None if bypass is None else workspace.empty(x.shape, bool)
    compute = implementation(x, _normalize_numpy, _normalize_cuda, _normalize_native)
    y, inverse = compute(x, mean, variance, gamma, beta, epsilon, relu, bypass, positive)
    return y, mean, inverse, positive


def _batch_norm_cuda(
    x: Array,
    gamma: Array,
    beta: Array,
    running: tuple[Array, Array],
    epsilon: float,
    momentum: float,
    relu: bool,
    bypass: Array | None,
    measured: Moments | None,
) -> tuple[Array, Array, Array, Array | None]:
    library, dtype = array_module(x), acc_dtype(x.dtype)
    x, gamma, beta = (library.ascontiguousarray(array, x.dtype) for array in (x, gamma, beta))
    means, squares, _, sums = moments(x) if measured is None else fewer(measured)
    own = pass_tiling(*x.shape)
    y = library.empty(x.shape, x.dtype)
    mean, inverse = (library.empty(x.shape[1], dtype) for _ in range(2))
    # Of strided ones a copy is moved.
    old = [library.ascontiguousarray(array) for array in running]
    numbers = (epsilon, momentum, 1 - momentum)
    cut = (own.blocks, *x.shape, own.width, own.range_rows, len(means), sums.range_rows)
    positive = None
    if bypass is None:
        arrays = (x, means, squares, gamma, beta, y, mean, inverse, *old)
        _FORWARD(own.blocks * block_size(), *arrays, *numbers, *cut, int(relu))
    else:
        positive = library.empty(x.shape, "uint8")
        arrays = (
            x,
            library.ascontiguousarray(bypass),
            means,
            squares,
            gamma,
            beta,
            y,
            positive,
            mean,
            inverse,
            *old,
        )
        _FORWARD_ADDED(own.blocks * block_size(), *arrays, *numbers, *cut)
        positive = positive.view(bool)
    for array, moved in zip(running, old, strict=True):
        if moved is not array:
            array[...] = moved
    return y, mean, inverse, positive


@profiling.operation
def normalize(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    positive: Array | None = None,
    bypass: Array | None = None,
) -> tuple[Array, Array]:
    """Compute y = γ·(x - mean) / √(variance + ε) + β, algorithm 1.

    Args:
        x: (M, C).
        mean: (C,) in the dtype of sums.
        variance: (C,) in the dtype of sums.
        gamma: (C,).
        beta: (C,).
        epsilon: ε.
        positive: bool (M, C), or None; if given, max(·, 0) follows, and this receives where y is above 0.
        bypass: (M, C) in the dtype of ``x``, added before that; or None.

    Raises:
        TypeError: ``positive`` is not bool.
        ValueError: ``positive`` or ``bypass`` has another shape.

    Returns:
        y (M, C) in the dtype of ``x``, and 1 / √(variance + ε) (C,).
    """
    require_same_device(x, mean, variance, gamma, beta, *([] if bypass is None else [bypass]))
    require_active(x, "x")
    epsilon = real("epsilon", epsilon, least=0, most=LARGEST_EPSILON)
    for name, array in (("positive", positive), ("bypass", bypass)):
        if array is not None and array.shape != x.shape:
            raise ValueError(f"{name} must have the shape of x, {x.shape}, got {array.shape}")
    if positive is not None and positive.dtype != bool:
        raise TypeError(f"positive must be bool, got {positive.dtype}")
    compute = implementation(x, _normalize_numpy, _normalize_cuda, _normalize_native)
    return compute(x, mean, variance, gamma, beta, epsilon, positive is not None, bypass, positive)


def _normalize_numpy(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    relu: bool,
    bypass: Array | None,
    positive: Array | None,
) -> tuple[Array, Array]:
    inverse = 1 / numpy.sqrt(variance + epsilon)
    y = normalized(x, mean, inverse, gamma, beta)
    if bypass is not None:
        y += bypass
    if positive is not None:
        numpy.greater(y, 0, out=positive)
    return numpy.maximum(y, 0) if relu else y, inverse


def normalized(x: Array, mean: Array, inverse: Array, gamma: Array, beta: Array) -> Array:
    """Return the normalized ``x`` (M, C), in its dtype, on a host or on a device."""
    return ((x - mean) * (inverse * gamma) + beta).astype(x.dtype, copy=False)


def _normalize_native(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    relu: bool,
    bypass: Array | None,
    positive: Array | None,
) -> tuple[Array, Array]:
    inverse = 1 / numpy.sqrt(variance + epsilon)
    x, bypass = numpy.ascontiguousarray(x), None if bypass is None else numpy.ascontiguousarray(bypass, x.dtype)
    cut, y = columns(*x.shape), workspace.empty(x.shape, x.dtype)
    mask = None if positive is None else target(positive, numpy.dtype(bool))
    arrays = x, bypass, factors((mean, inverse * gamma, beta), acc_dtype(x.dtype), cut), y, mask
    sizes = int(relu), x.size, cut.width, cut.block_rows
    _NATIVE.share(x.dtype, cut.blocks, 2 * cut.block_size * x.itemsize, *arrays, *sizes)
    if positive is not None and mask is not positive:
        positive[...] = mask
    return y, inverse


def factors(vectors: Sequence[Any], dtype: numpy.dtype, cut: Columns) -> Array:
    """Return numbers for each column, (C,) or one for all, as rows for the C kernels: repeated as the cut has them."""
    rows = numpy.empty((len(vectors) + 1, cut.fold, cut.width // cut.fold), dtype)
    for row, vector in zip(rows, vectors, strict=False):
        row[...] = vector
    return rows


def _normalize_cuda(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    relu: bool,
    bypass: Array | None,
    positive: Array | None,
) -> tuple[Array, Array]:
    library, dtype = array_module(x), acc_dtype(x.dtype)
    (rows, channels), own = x.shape, pass_tiling(*x.shape)
    y, inverse = library.empty(x.shape, x.dtype), library.empty(channels, dtype)
    mean, variance = (library.ascontiguousarray(vector, dtype) for vector in (mean, variance))
    x, gamma, beta = (library.ascontiguousarray(array, x.dtype) for array in (x, gamma, beta))
    _NORMALIZE(
        own.blocks * block_size(), x, mean, variance, gamma, beta, y, inverse, epsilon, own.blocks, rows, channels,
        own.width, own.range_rows,
    )  # fmt: skip
    if bypass is not None:
        y += bypass
    if positive is not None:
        rectify(y, positive)
    return y, inverse
