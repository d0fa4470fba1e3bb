"""Bounds for the losses and their gradients."""

from __future__ import annotations

import copy

import numpy

from kernels.core.dtypes import acc_dtype
from kernels.soft_targets import soft_targets
from layers import HingeLoss, HuberLoss, Loss, MeanSquaredError, SigmoidWithLoss, SoftmaxWithLoss
from training.check.bounds import FUNCTION_ULPS, Bound, measured_bound, sum_ulps, ulps
from training.check.layer_bounds import depths, elementwise_factor

Bounds = dict[str, Bound]


def loss_bounds(loss: Loss, x: numpy.ndarray, t: numpy.ndarray) -> Bounds:
    """Return the bounds of a loss (``loss``), its gradient (``dx``) and, of a softmax, its probabilities (``y``).

    Args:
        loss: any loss; it is not changed. One of a kind that xpnet does not have is held to a multiple of the CPU's
            error, as ``measured_bound`` says.
        x: what the network computes (N, outputs), on the host.
        t: the targets, on the host.
    """
    exact, twin, wide = copy.deepcopy(loss), copy.deepcopy(loss), acc_dtype(x.dtype)
    value = numpy.asarray(exact.forward(x.astype("float64"), t))
    dx = exact.backward()
    sums = sum_ulps(x.size) + 3 * FUNCTION_ULPS + 8
    if type(loss) is SoftmaxWithLoss:
        return _softmax_bounds(loss, x, t, exact.y, value, dx)
    if type(loss) is HingeLoss:  # which margins count is decided exactly, by two roundings of a score
        size = value + 2 * x.shape[1] * numpy.abs(x.astype("float64")).max(axis=1).mean()
        twin.forward(x.astype(wide), t)
        dx, of_dx = twin.backward().astype("float64"), None
    elif type(loss) is SigmoidWithLoss:
        size, of_dx = value, (exact.y + t.reshape(dx.shape)) / dx.size
    elif type(loss) in (MeanSquaredError, HuberLoss):
        size, of_dx = value, None
    else:
        given = numpy.asarray(twin.forward(x, t))
        return {"loss": measured_bound(value, given), "dx": measured_bound(dx, twin.backward())}
    return {
        "loss": Bound(value, wide, ulps(wide, sums, 0), size),
        "dx": Bound(dx, x.dtype, ulps(x.dtype, 2 * FUNCTION_ULPS + 4, 1), of_dx),
    }


def _softmax_bounds(
    loss: SoftmaxWithLoss, x: numpy.ndarray, t: numpy.ndarray, y: numpy.ndarray, value: numpy.ndarray, dx: numpy.ndarray
) -> Bounds:
    """Return the bounds of softmax cross-entropy: with label smoothing and weights, of its soft targets."""
    dtype, (count, classes) = acc_dtype(x.dtype), x.shape
    is_plain = repr(loss) == "SoftmaxWithLoss()"
    weights = None if loss.class_weights is None else numpy.asarray(loss.class_weights, "float64")
    smoothing = loss.label_smoothing
    targets, _ = soft_targets(
        t, x.shape, "float64", smoothing=smoothing, weights=weights, ignore_index=loss.ignore_index
    )
    depth, mean_depth = depths(x.astype("float64"), y)
    of_y = y * (1 + depth + mean_depth)
    row = targets.sum(axis=1)
    log_total = numpy.log(numpy.exp(-depth).sum(axis=1))
    of_loss = (row * (1 + mean_depth[:, 0] + log_total) + (depth * targets).sum(axis=1)).mean()
    sums = sum_ulps(classes) + 2 * FUNCTION_ULPS + 2
    of_targets = 0 if is_plain else sum_ulps(count) + 6
    factor = elementwise_factor(x.dtype) if is_plain else numpy.inf
    of_dx = (of_y * row[:, None] + targets) / count
    return {
        "loss": Bound(value, dtype, ulps(dtype, sums + of_targets + sum_ulps(count), 0), of_loss),
        "y": Bound(y, dtype, ulps(dtype, sums, 0), of_y, elementwise_factor(dtype)),
        "dx": Bound(dx, x.dtype, ulps(x.dtype, sums + of_targets + 3, 1), of_dx, factor),
    }
