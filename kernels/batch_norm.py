"""Batch normalisation over the columns of a matrix (Ioffe and Szegedy, "Batch normalization", ICML 2015).

For images the matrix is the channels-last storage, pixels by channels; the caller makes it.
"""

from __future__ import annotations

from typing import Any

from backend import array_module, workspace
from kernels.gemm import accumulator, column_sums


def batch_statistics(x: Any) -> tuple[Any, Any]:
    """Mean and (biased) variance of each column of ``x`` (M, C): both (C,), in the dtype of sums.

    Two passes, the second over deviations from the mean: E[x²] - E[x]² would cancel. M must not be 0.
    """
    wide = x.astype(accumulator(x.dtype), copy=False)
    mean = column_sums(wide) / len(x)
    deviation = workspace.empty(wide.shape, wide.dtype)
    library = array_module(x)
    library.subtract(wide, mean, out=deviation)
    library.multiply(deviation, deviation, out=deviation)
    return mean, column_sums(deviation) / len(x)


def normalize(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any]:
    """y = γ·(x - mean) / √(variance + ε) + β, algorithm 1.

    Args:
        x: (M, C).
        mean, variance: (C,) in the dtype of sums.
        gamma, beta: (C,).

    Returns:
        y (M, C) in the dtype of ``x``, and 1 / √(variance + ε) (C,).

    """
    library = array_module(x, mean, gamma)
    inverse = 1 / library.sqrt(variance + epsilon)
    y = workspace.empty(x.shape, mean.dtype)
    library.subtract(x, mean, out=y)
    y *= inverse * gamma
    y += beta
    return y.astype(x.dtype, copy=False), inverse


def normalize_backward(dy: Any, x: Any, mean: Any, inverse: Any, gamma: Any) -> tuple[Any, Any, Any]:
    """The gradients of :func:`normalize` where mean and variance are those of ``x`` itself.

    With x̂ = (x - mean)·inverse: dγ = Σ dy·x̂, dβ = Σ dy, dx = γ·inverse·(dy - dβ/M - x̂·dγ/M); the paper's
    section 3 chain rule, collected.

    Returns:
        dx (M, C) in the dtype of ``dy``; dgamma and dbeta (C,) in the dtype of sums.

    """
    library = array_module(dy, x, mean, gamma)
    wide = dy.astype(mean.dtype, copy=False)
    normalized = workspace.empty(x.shape, mean.dtype)
    library.subtract(x, mean, out=normalized)
    normalized *= inverse
    dbeta = column_sums(wide)
    dx = workspace.empty(x.shape, mean.dtype)
    library.multiply(wide, normalized, out=dx)
    dgamma = column_sums(dx)
    rows = max(len(x), 1)
    library.multiply(normalized, dgamma / -rows, out=dx)
    dx += wide
    dx -= dbeta / rows
    dx *= gamma * inverse
    return dx.astype(dy.dtype, copy=False), dgamma, dbeta


def normalize_backward_fixed(dy: Any, x: Any, mean: Any, inverse: Any, gamma: Any) -> tuple[Any, Any, Any]:
    """The gradients of :func:`normalize` where mean and variance are constants (evaluation)."""
    wide = dy.astype(mean.dtype, copy=False)
    dgamma = column_sums(wide * ((x - mean) * inverse))
    return (wide * (gamma * inverse)).astype(dy.dtype, copy=False), dgamma, column_sums(wide)
