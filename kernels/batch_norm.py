"""Batch normalisation over the columns of a matrix (Ioffe and Szegedy, "Batch normalization", ICML 2015).

For images the matrix is the channels-last storage, pixels by channels; the caller makes it. All passes go piece by
piece, so that what one pass over a piece reads, the next finds in cache.
"""

from __future__ import annotations

from typing import Any

from backend import array_module, workspace
from kernels.gemm import accumulator, piece_sums
from kernels.layout import folded
from kernels.parts import pieces, run


def batch_statistics(x: Any) -> tuple[Any, Any]:
    """Mean and (biased) variance of each column of ``x`` (M, C): both (C,), in the dtype of sums.

    Each piece sums its values and then the squares of their deviations from its own mean; the pieces are put together
    in order by the formula of Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983), eq. 2.1.
    E[x²] - E[x]² would cancel. M must not be 0.
    """
    library, dtype = array_module(x), accumulator(x.dtype)
    rows, fold = folded(x)
    cuts = pieces(len(rows), rows[:1].size * dtype.itemsize, library)
    means = library.empty((len(cuts), x.shape[1]), dtype)
    squares = library.empty_like(means)

    def collect(index: int) -> None:
        piece = rows[cuts[index]].astype(dtype, copy=False)
        mean = piece_sums(piece, fold)
        mean /= len(piece) * fold
        deviation = library.subtract(piece, library.tile(mean, fold), out=workspace.empty(piece.shape, dtype))
        library.multiply(deviation, deviation, out=deviation)
        means[index], squares[index] = mean, piece_sums(deviation, fold)

    run(collect, list(range(len(cuts))), x)
    if len(cuts) == 1:
        return means[0], squares[0] / len(x)
    counts = library.asarray([(cut.stop - cut.start) * fold for cut in cuts], dtype)[:, None]
    mean = (means * (counts / len(x))).sum(axis=0)
    between = means - mean
    between *= between
    between *= counts
    return mean, (squares.sum(axis=0) + between.sum(axis=0)) / len(x)


def normalize(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any]:
    """y = γ·(x - mean) / √(variance + ε) + β, algorithm 1.

    Args:
        x: (M, C).
        mean: (C,) in the dtype of sums.
        variance: (C,) in the dtype of sums.
        gamma: (C,).
        beta: (C,).
        epsilon: ε.

    Returns:
        y (M, C) in the dtype of ``x``, and 1 / √(variance + ε) (C,).
    """
    library = array_module(x, mean, gamma)
    inverse = 1 / library.sqrt(variance + epsilon)
    y = workspace.empty(x.shape, x.dtype)
    (rows, fold), (out, _) = folded(x), folded(y)
    center, scale, shift = (library.tile(vector, fold) for vector in (mean, inverse * gamma, beta))

    def apply(cut: slice) -> None:
        piece = _scratch(out[cut], mean.dtype)
        library.subtract(rows[cut], center, out=piece)
        piece *= scale
        piece += shift
        if piece.dtype != out.dtype:
            out[cut] = piece

    run(apply, pieces(len(rows), rows[:1].nbytes, library), x)
    return y, inverse


def normalize_backward(dy: Any, x: Any, mean: Any, inverse: Any, gamma: Any) -> tuple[Any, Any, Any]:
    """The gradients of :func:`normalize` where mean and variance are those of ``x`` itself.

    With x̂ = (x - mean)·inverse: dγ = Σ dy·x̂, dβ = Σ dy, dx = γ·inverse·(dy - dβ/M - x̂·dγ/M); the paper's
    section 3 chain rule, collected.

    Returns:
        dx (M, C) in the dtype of ``dy``; dgamma and dbeta (C,) in the dtype of sums.
    """
    library = array_module(dy, x, mean, gamma)
    dgamma, dbeta = _parameter_gradients(dy, x, mean, inverse)
    dx = workspace.empty(x.shape, dy.dtype)
    count = max(len(x), 1)
    (rows, fold), (gradient, _), (out, _) = folded(x), folded(dy), folded(dx)
    vectors = (mean, inverse * dgamma / count, dbeta / count, gamma * inverse)
    center, slope, shift, scale = (library.tile(vector, fold) for vector in vectors)

    def apply(cut: slice) -> None:
        piece = _scratch(out[cut], mean.dtype)
        library.subtract(rows[cut], center, out=piece)
        piece *= slope
        library.subtract(gradient[cut], piece, out=piece)
        piece -= shift
        piece *= scale
        if piece.dtype != out.dtype:
            out[cut] = piece

    run(apply, pieces(len(rows), rows[:1].nbytes, library), x)
    return dx, dgamma, dbeta


def normalize_backward_fixed(dy: Any, x: Any, mean: Any, inverse: Any, gamma: Any) -> tuple[Any, Any, Any]:
    """The gradients of :func:`normalize` where mean and variance are constants (evaluation)."""
    dgamma, dbeta = _parameter_gradients(dy, x, mean, inverse)
    return (dy * (gamma * inverse)).astype(dy.dtype, copy=False), dgamma, dbeta


def _parameter_gradients(dy: Any, x: Any, mean: Any, inverse: Any) -> tuple[Any, Any]:
    """dγ and dβ: (C,) in the dtype of sums, the pieces added in order."""
    library, dtype = array_module(dy, x, mean), mean.dtype
    (rows, fold), (gradient, _) = folded(x), folded(dy)
    cuts = pieces(len(rows), rows[:1].nbytes, library)
    sums = library.empty((2, len(cuts), x.shape[1]), dtype)
    center = library.tile(mean, fold)

    def collect(index: int) -> None:
        upstream = gradient[cuts[index]].astype(dtype, copy=False)
        deviation = library.subtract(rows[cuts[index]], center, out=workspace.empty(upstream.shape, dtype))
        deviation *= upstream
        sums[0, index] = piece_sums(deviation, fold)
        sums[1, index] = piece_sums(upstream, fold)

    run(collect, list(range(len(cuts))), x)
    dgamma, dbeta = sums.sum(axis=1)
    return dgamma * inverse, dbeta


def _scratch(out: Any, dtype: Any) -> Any:
    """Where to compute what ``out`` shall hold: itself, unless sums have another dtype."""
    return out if out.dtype == dtype else workspace.empty(out.shape, dtype)
