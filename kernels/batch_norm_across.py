"""Batch normalization by the statistics of the rows of several processes, which each have some of them.

It is made of the operations of ``batch_norm`` and ``batch_norm_backward``; what they take of one process's rows goes
through ``across`` in between, which sums over all.
"""

from __future__ import annotations

from typing import Any, Protocol

from backend import array_module, workspace
from backend.types import Array
from kernels.batch_norm import normalize
from kernels.batch_norm_backward import normalize_backward_fixed, positive
from kernels.batch_statistics import batch_statistics, move_running
from kernels.core.dtypes import acc_dtype
from kernels.masking import masked


class Across(Protocol):
    """Sums over the processes."""

    def statistics(self, count: int, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        """Return number of rows (0-d), mean and variance over all processes, of those of this one."""

    def gradients(self, dgamma: Array, dbeta: Array) -> tuple[Array, Array]:
        """Return the sums over all processes, in the unit of this one's gradients."""


def batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_variance: Array,
    epsilon: float,
    momentum: float,
    relu: bool,
    bypass: Array | None,
    across: Across,
) -> tuple[Array, Array, Array, Array | None, Array]:
    """Do what ``batch_norm.batch_norm`` does by the statistics of all processes, whose running ones become the same.

    Args:
        x: (M, C), the rows of this process; M may be 0.
        across: sums over the processes.

    Returns:
        y (M, C), mean and 1 / √(variance + ε) (C,), with ``relu`` where y is above 0, bool (M, C), and the rows of all
        processes, 0-d.
    """
    xp, dtype = array_module(x), acc_dtype(x.dtype)
    mean, variance = batch_statistics(x) if len(x) else (xp.zeros(x.shape[1], dtype), xp.zeros(x.shape[1], dtype))
    count, mean, variance = across.statistics(len(x), mean, variance)
    mean, variance = mean.astype(dtype), variance.astype(dtype)
    move_running((running_mean, running_variance), (mean, variance), momentum)
    above = workspace.empty(x.shape, bool) if relu else None
    y, inverse = normalize(x, mean, variance, gamma, beta, epsilon, above, bypass)
    return y, mean, inverse, above, count


def backward(
    dy: Array, x: Array, mean: Array, inverse: Array, gamma: Array, beta: Array | None, count: Any, across: Across
) -> tuple[Array, Array, Array]:
    """Return the gradients of x, of gamma and of beta: of the rows of this process, through all processes' statistics.

    Args:
        dy: (M, C), the gradient of y; with ``beta`` that of max(y, 0).
        count: the rows of all processes, 0-d.
    """
    if beta is not None:
        dy = masked(dy, positive(x, mean, inverse, gamma, beta))
    _, dgamma, dbeta = normalize_backward_fixed(dy, x, mean, inverse, gamma)
    sums = [(each / count).astype(dgamma.dtype) for each in across.gradients(dgamma, dbeta)]
    dx = (dy - (x - mean) * (inverse * sums[0]) - sums[1]) * (inverse * gamma)
    return dx.astype(dy.dtype, copy=False), dgamma, dbeta
