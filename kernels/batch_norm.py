"""Batch normalization over the columns of a matrix (Ioffe and Szegedy, "Batch normalization", ICML 2015).

For images the matrix is the channels-last memory, pixels by channels; the caller makes it. On the CPU all passes go
piece by piece, so that the next pass over a piece finds it in cache; on a GPU they are kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy

from backend import array_module, profiling, require_active, require_same_device, workspace
from backend.checks import LARGEST_EPSILON, real
from backend.types import Array
from kernels.activations import rectify
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.layout import folded
from kernels.core.tiling import in_pieces, parallel_for, pieces
from kernels.sums import piece_sums

_MOMENTS, _STATISTICS, _NORMALIZE, _PRODUCTS, _PARAMETER_GRADIENTS, _BACKWARD = (
    Kernel("batch_norm.cu", f"batch_norm_{name}")
    for name in ("moments", "statistics", "normalize", "products", "parameter_gradients", "backward")
)


class Tiling(NamedTuple):
    """The kernels' cut of (M, C): blocks have ``width`` columns by ``range_rows`` rows, or ``width`` by all ranges."""

    width: int
    range_rows: int
    ranges: int
    blocks: int
    narrow_width: int
    narrow_blocks: int


_CHUNK = 8  # of batch_norm.cu
_MOST_BLOCKS = 1024  # fill the largest GPUs; more would only be more partial results


def tiling_of(rows: int, channels: int) -> Tiling:
    """Return the cut, by shapes alone: results have the same bits on every GPU."""
    width = min(1 << max(channels - 1, 0).bit_length(), 32)
    # The second stage reads little, and its threads go over ranges: few columns a block leave many threads for them.
    narrow_width = min(width, 8)
    across, narrow_across = -(-channels // width), -(-channels // narrow_width)
    ranges = max(min(-(-rows // (block_size() // width * _CHUNK)), _MOST_BLOCKS // max(across, 1)), 1)
    range_rows = max(-(-rows // ranges), 1)
    ranges = max(-(-rows // range_rows), 1)
    return Tiling(width, range_rows, ranges, across * ranges, narrow_width, narrow_across)


@profiling.operation
def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Return mean and (biased) variance of each column of ``x`` (M, C), both (C,), in the dtype of sums.

    Each piece sums its values and then the squares of their deviations from its own mean; the pieces are put together
    in order by the formula of Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983), eq. 2.1.
    E[x²] - E[x]² would cancel. M must not be 0.
    """
    require_active(x, "x")
    return implementation(x, _batch_statistics_numpy, _batch_statistics_cuda)(x)


def _batch_statistics_numpy(x: Array) -> tuple[Array, Array]:
    dtype = acc_dtype(x.dtype)
    rows, fold = folded(x)
    cuts = pieces(len(rows), rows[:1].size * dtype.itemsize, numpy)
    means = numpy.empty((len(cuts), x.shape[1]), dtype)
    squares = numpy.empty_like(means)

    def collect(index: int) -> None:
        piece = rows[cuts[index]].astype(dtype, copy=False)
        mean = piece_sums(piece, fold)
        mean /= len(piece) * fold
        deviation = numpy.subtract(piece, numpy.tile(mean, fold), out=workspace.empty(piece.shape, dtype))
        means[index], squares[index] = mean, _sums_of_products(deviation, deviation, fold)

    parallel_for(collect, range(len(cuts)), x)
    if len(cuts) == 1:
        return means[0], squares[0] / len(x)
    counts = numpy.asarray([(cut.stop - cut.start) * fold for cut in cuts], dtype)[:, None]
    mean = (means * (counts / len(x))).sum(axis=0)
    between = means - mean
    between *= between
    between *= counts
    return mean, (squares.sum(axis=0) + between.sum(axis=0)) / len(x)


def _batch_statistics_cuda(x: Array) -> tuple[Array, Array]:
    library, dtype = array_module(x), acc_dtype(x.dtype)
    (rows, channels), tiling = x.shape, tiling_of(*x.shape)
    means, squares = (library.empty((tiling.ranges, channels), dtype) for _ in range(2))
    mean, variance = (library.empty(channels, dtype) for _ in range(2))
    width, range_rows, ranges, blocks, narrow_width, narrow_blocks = tiling
    x = library.ascontiguousarray(x)
    _MOMENTS(blocks * block_size(), x, means, squares, blocks, rows, channels, width, range_rows)
    last_rows = rows - (ranges - 1) * range_rows
    _STATISTICS(
        narrow_blocks * block_size(), means, squares, mean, variance, narrow_blocks, channels, narrow_width, ranges,
        range_rows, last_rows,
    )  # fmt: skip
    return mean, variance


@profiling.operation
def normalize(
    x: Array, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float, positive: Array | None = None
) -> tuple[Array, Array]:
    """Compute y = γ·(x - mean) / √(variance + ε) + β, algorithm 1.

    Args:
        x: (M, C).
        mean: (C,) in the dtype of sums.
        variance: (C,) in the dtype of sums.
        gamma: (C,).
        beta: (C,).
        epsilon: ε.
        positive: bool (M, C), or None; if given, max(·, 0) follows piece by piece, and this receives where y is
            above 0.

    Returns:
        y (M, C) in the dtype of ``x``, and 1 / √(variance + ε) (C,).
    """
    require_same_device(x, mean, variance, gamma, beta)
    require_active(x, "x")
    epsilon = real("epsilon", epsilon, least=0, most=LARGEST_EPSILON)
    return implementation(x, _normalize_numpy, _normalize_cuda)(x, mean, variance, gamma, beta, epsilon, positive)


def _normalize_numpy(
    x: Array, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float, positive: Array | None
) -> tuple[Array, Array]:
    inverse = 1 / numpy.sqrt(variance + epsilon)
    y = workspace.empty(x.shape, x.dtype)
    (rows, fold), (out, _) = folded(x), folded(y)
    center, scale, shift = (numpy.tile(vector, fold) for vector in (mean, inverse * gamma, beta))
    above = None if positive is None else positive.reshape(out.shape)

    def apply(cut: slice) -> None:
        piece = _scratch(out[cut], mean.dtype)
        numpy.subtract(rows[cut], center, out=piece)
        piece *= scale
        piece += shift
        if piece.dtype != out.dtype:
            out[cut] = piece
        if above is not None:
            rectify(out[cut], above[cut])

    in_pieces(apply, rows)
    return y, inverse


def _normalize_cuda(
    x: Array, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float, positive: Array | None
) -> tuple[Array, Array]:
    library, dtype = array_module(x), acc_dtype(x.dtype)
    (rows, channels), tiling = x.shape, tiling_of(*x.shape)
    y, inverse = library.empty(x.shape, x.dtype), library.empty(channels, dtype)
    mean, variance = (library.ascontiguousarray(vector, dtype) for vector in (mean, variance))
    x, gamma, beta = (library.ascontiguousarray(array, x.dtype) for array in (x, gamma, beta))
    _NORMALIZE(
        tiling.blocks * block_size(), x, mean, variance, gamma, beta, y, inverse, epsilon, tiling.blocks, rows,
        channels, tiling.width, tiling.range_rows,
    )  # fmt: skip
    if positive is not None:
        rectify(y, positive)
    return y, inverse


@profiling.operation
def normalize_backward(dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of ``normalize`` where mean and variance are those of ``x`` itself.

    With x̂ = (x - mean)·inverse: dγ = Σ dy·x̂, dβ = Σ dy, dx = γ·inverse·(dy - dβ/M - x̂·dγ/M); the paper's
    section 3 chain rule, collected.

    Returns:
        dx (M, C) in the dtype of ``dy``; dgamma and dbeta (C,) in the dtype of sums.
    """
    require_same_device(dy, x, mean, inverse, gamma)
    require_active(x)
    return implementation(x, _normalize_backward_numpy, _normalize_backward_cuda)(dy, x, mean, inverse, gamma)


def _normalize_backward_numpy(
    dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array
) -> tuple[Array, Array, Array]:
    dgamma, dbeta = _parameter_gradients_numpy(dy, x, mean, inverse)
    dx = workspace.empty(x.shape, dy.dtype)
    count = max(len(x), 1)
    (rows, fold), (gradient, _), (out, _) = folded(x), folded(dy), folded(dx)
    vectors = (mean, inverse * dgamma / count, dbeta / count, gamma * inverse)
    center, slope, shift, scale = (numpy.tile(vector, fold) for vector in vectors)

    def apply(cut: slice) -> None:
        piece = _scratch(out[cut], mean.dtype)
        numpy.subtract(rows[cut], center, out=piece)
        piece *= slope
        numpy.subtract(gradient[cut], piece, out=piece)
        piece -= shift
        piece *= scale
        if piece.dtype != out.dtype:
            out[cut] = piece

    in_pieces(apply, rows)
    return dx, dgamma, dbeta


def _normalize_backward_cuda(
    dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array
) -> tuple[Array, Array, Array]:
    library, tiling, arrays = array_module(x), tiling_of(*x.shape), _contiguous(dy, x, mean, inverse)
    dgamma, dbeta = _parameter_gradients_cuda(*arrays)
    dx = library.empty(x.shape, x.dtype)
    gamma = library.ascontiguousarray(gamma, x.dtype)
    _BACKWARD(
        tiling.blocks * block_size(), *arrays, gamma, dgamma, dbeta, dx, tiling.blocks, *x.shape, tiling.width,
        tiling.range_rows,
    )  # fmt: skip
    return dx.astype(dy.dtype, copy=False), dgamma, dbeta


@profiling.operation
def normalize_backward_fixed(
    dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array
) -> tuple[Array, Array, Array]:
    """Return the gradients of ``normalize`` where mean and variance are constants (evaluation)."""
    require_same_device(dy, x, mean, inverse, gamma)
    require_active(x)
    compute = implementation(x, _parameter_gradients_numpy, _parameter_gradients_cuda)
    dgamma, dbeta = compute(dy, x, mean, inverse)
    return (dy * (gamma * inverse)).astype(dy.dtype, copy=False), dgamma, dbeta


def _parameter_gradients_numpy(dy: Array, x: Array, mean: Array, inverse: Array) -> tuple[Array, Array]:
    """Return dγ and dβ: (C,) in the dtype of sums, the pieces added in order."""
    dtype = mean.dtype
    (rows, fold), (gradient, _) = folded(x), folded(dy)
    cuts = pieces(len(rows), rows[:1].nbytes, numpy)
    sums = numpy.empty((2, len(cuts), x.shape[1]), dtype)
    center = numpy.tile(mean, fold)

    def collect(index: int) -> None:
        upstream = gradient[cuts[index]].astype(dtype, copy=False)
        deviation = numpy.subtract(rows[cuts[index]], center, out=workspace.empty(upstream.shape, dtype))
        sums[0, index] = _sums_of_products(deviation, upstream, fold)
        sums[1, index] = piece_sums(upstream, fold)

    parallel_for(collect, range(len(cuts)), x)
    dgamma, dbeta = sums.sum(axis=1)
    return dgamma * inverse, dbeta


def _parameter_gradients_cuda(dy: Array, x: Array, mean: Array, inverse: Array) -> tuple[Array, Array]:
    library, dtype, channels = array_module(x), acc_dtype(x.dtype), x.shape[1]
    width, range_rows, ranges, blocks, narrow_width, narrow_blocks = tiling_of(*x.shape)
    products, sums = (library.empty((ranges, channels), dtype) for _ in range(2))
    dgamma, dbeta = (library.empty(channels, dtype) for _ in range(2))
    dy, x, mean, inverse = _contiguous(dy, x, mean, inverse)
    _PRODUCTS(blocks * block_size(), dy, x, mean, products, sums, blocks, *x.shape, width, range_rows)
    _PARAMETER_GRADIENTS(
        narrow_blocks * block_size(), products, sums, inverse, dgamma, dbeta, narrow_blocks, channels, narrow_width,
        ranges,
    )  # fmt: skip
    return dgamma, dbeta


def _sums_of_products(a: Array, b: Array, fold: int) -> Array:
    """Return the column sums of a·b, for pieces of matrices on the CPU folded by ``fold``, without writing a·b."""
    sums = numpy.einsum("ij,ij->j", a, b)
    return sums if fold == 1 else sums.reshape(fold, -1).sum(axis=0)


def _scratch(out: Array, dtype: numpy.dtype) -> Array:
    """Return an array to compute ``out`` in: itself, unless sums have another dtype."""
    return out if out.dtype == dtype else workspace.empty(out.shape, dtype)


def _contiguous(dy: Array, x: Array, mean: Array, inverse: Array) -> tuple[Array, Array, Array, Array]:
    """Return the arrays as the kernels take them, copied only where strides or a dtype do not fit."""
    copy, dtype = array_module(x).ascontiguousarray, acc_dtype(x.dtype)
    return copy(dy, x.dtype), copy(x), copy(mean, dtype), copy(inverse, dtype)
