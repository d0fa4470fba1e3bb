"""Losses of predicted numbers: squared error, and Huber's, which is linear in large errors."""

from __future__ import annotations

import numpy

from backend import array_module, profiling, require_active, require_same_device, workspace
from backend.checks import real
from backend.types import Array
from kernels import targets
from kernels.core.checks import check_wide_dtype
from kernels.core.dispatch import implementation
from kernels.core.native import Function
from kernels.core.ranges import add_ranges
from kernels.sums import axis_means

_REGRESSION, _HUBER_BACKWARD = (Function("regression.c", name) for name in ("regression", "huber_backward"))


@profiling.operation
def squared_error(x: Array, t: Array) -> tuple[Array, Array]:
    """Compute the mean of (x - t)² over all elements, and x - t.

    Args:
        x: predictions (N, …), float32 or float64.
        t: finite numbers in the shape of ``x``; for x (N, 1) also (N,). Any real dtype.

    Returns:
        loss: 0-d, dtype of ``x``, on the device; 0 without elements.
        error: x - t, shape and dtype of ``x``.

    Raises:
        TypeError: predictions are not float32 or float64, targets are not numbers, or host and device arrays are mixed.
        ValueError: shapes do not fit; or, on the CPU, a target is not finite (the first such is named).

    Examples:
        >>> from backend import xp
        >>> from kernels.regression import squared_error
        >>> squared_error(xp.asarray([[1.0], [2.0]]), xp.asarray([0, 4]))[0]
        array(2.5)
    """
    t = _targets("squared_error", x, t)
    return implementation(x, _squared_error, _squared_error, _squared_error_native)(x, t)


def _squared_error(x: Array, t: Array) -> tuple[Array, Array]:
    error = x - t
    return _mean(error * error), error


def _squared_error_native(x: Array, t: Array) -> tuple[Array, Array]:
    return _regression_native(x, t, True, 0.0)


def _regression_native(x: Array, t: Array, squared: bool, delta: float) -> tuple[Array, Array]:
    x, t, error = numpy.ascontiguousarray(x), numpy.ascontiguousarray(t), workspace.empty(x.shape, x.dtype)
    total = add_ranges(_REGRESSION, x.dtype, x.size, 3 * x.itemsize, (x, t, error), (squared, delta))
    return numpy.asarray(total / max(x.size, 1), x.dtype), error


@profiling.operation
def squared_error_backward(error: Array) -> Array:
    """Return the gradient of ``squared_error`` with respect to the predictions: 2·error / elements."""
    return error * (2 / max(error.size, 1))


@profiling.operation
def huber(x: Array, t: Array, delta: float) -> tuple[Array, Array]:
    """Compute the mean of ½e² where |e| = |x - t| ≤ delta, else delta·(|e| - ½delta); and e (Huber, 1964).

    Arguments, results and errors are those of ``squared_error``; ``delta`` is above 0.
    """
    delta = real("delta", delta, above=0)
    t = _targets("huber", x, t)
    return implementation(x, _huber, _huber, _huber_native)(x, t, delta)


def _huber(x: Array, t: Array, delta: float) -> tuple[Array, Array]:
    error, library = x - t, array_module(x)
    size = library.absolute(error)
    within = library.minimum(size, delta)
    # Both branches in one: with w = min(|e|, delta), w·(|e| - ½w).
    return _mean(within * (size - 0.5 * within)), error


def _huber_native(x: Array, t: Array, delta: float) -> tuple[Array, Array]:
    return _regression_native(x, t, False, delta)


@profiling.operation
def huber_backward(error: Array, delta: float) -> Array:
    """Return the gradient of ``huber`` with respect to the predictions: error, cut off at ±delta, / elements.

    Raises:
        TypeError: errors are not float32 or float64, or ``delta`` is not a number.
        ValueError: ``delta`` is not above 0.
    """
    delta = real("delta", delta, above=0)
    check_wide_dtype("huber_backward", error.dtype)
    return implementation(error, _huber_backward, _huber_backward, _huber_backward_native)(error, delta)


def _huber_backward(error: Array, delta: float) -> Array:
    return array_module(error).clip(error, -delta, delta) / max(error.size, 1)


def _huber_backward_native(error: Array, delta: float) -> Array:
    error, dx, dtype = numpy.ascontiguousarray(error), workspace.empty(error.shape, error.dtype), error.dtype
    given = (error, dx, delta, error.size)
    _HUBER_BACKWARD.share(dtype, error.size, 2 * error.itemsize, *given)
    return dx


def _mean(cost: Array) -> Array:
    """Return the mean of all elements, 0-d; 0 if there are none."""
    library = array_module(cost)
    return library.asarray(axis_means(cost.reshape(-1), 0)) if cost.size else library.zeros((), cost.dtype)


def _targets(operation: str, x: Array, t: Array) -> Array:
    """Return targets that fit ``x`` in its shape and dtype, after checking both."""
    require_same_device(x, t)
    require_active(x, "x")
    check_wide_dtype(operation, x.dtype)
    targets.check(t, x.shape)
    return targets.as_outputs(t, x)
