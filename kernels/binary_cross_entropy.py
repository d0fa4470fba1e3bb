"""Binary cross-entropy of scores, computed without overflow: a score is the logarithm of p / (1 - p)."""

from __future__ import annotations

import numpy

from backend import array_module, profiling, require_active, require_arrays, require_same_device, workspace
from backend.types import Array
from kernels import targets
from kernels.core.checks import check_wide_dtype
from kernels.core.dispatch import implementation
from kernels.core.native import Function
from kernels.core.ranges import add_ranges
from kernels.sums import axis_means

_FORWARD, _BACKWARD = (Function("binary_cross_entropy.c", f"binary_cross_entropy{way}") for way in ("", "_backward"))
_OF_EXP_AND_LOG = 64  # bytes that a core reads and writes in the time of one number


@profiling.operation
def binary_cross_entropy(x: Array, t: Array) -> tuple[Array, Array]:
    """Compute the mean of -t·log(y) - (1 - t)·log(1 - y) over all elements, for y = 1 / (1 + exp(-x)), and y.

    A term is |x|·c + log(1 + exp(-|x|)), where c is 1 - t for positive scores and t for others: no number in it is
    larger than the result.

    Args:
        x: scores (N, …), float32 or float64.
        t: probabilities from 0 to 1 in the shape of ``x``; for x (N, 1) also (N,). Any dtype, bool too.

    Returns:
        loss: 0-d, dtype of ``x``, on the device; 0 without elements. On a GPU a target out of range makes it NaN,
            since raising would wait for the device.
        y: the probabilities, shape and dtype of ``x``.

    Raises:
        TypeError: scores are not float32 or float64, targets are not numbers, or host and device arrays are mixed.
        ValueError: shapes do not fit; or, on the CPU, a target is not from 0 to 1 (the first such is named).

    Examples:
        >>> from backend import xp
        >>> from kernels.binary_cross_entropy import binary_cross_entropy
        >>> loss, y = binary_cross_entropy(xp.zeros((2, 3)), xp.asarray([[0, 1, 1], [0, 0, 1]]))
        >>> round(float(loss), 4), y[0]
        (0.6931, array([0.5, 0.5, 0.5]))
    """
    require_same_device(x, t)
    require_active(x, "x")
    check_wide_dtype("binary_cross_entropy", x.dtype)
    targets.check(t, x.shape, least=0, most=1)
    library, t = array_module(x), targets.as_outputs(t, x)
    if not x.size:
        return library.zeros((), x.dtype), x.copy()
    return implementation(x, _with_library, _with_library, _native)(x, t)


def _with_library(x: Array, t: Array) -> tuple[Array, Array]:
    library = array_module(x)
    size = library.absolute(x)
    small = library.exp(-size)  # from 0 to 1
    cost = library.where(x > 0, 1 - t, t)
    cost *= library.where(cost == 0, 0, size)  # a score may be infinite where that is right: 0·∞ would be NaN
    cost += library.log1p(small)
    if library is not numpy:
        cost = library.where((t >= 0) & (t <= 1), cost, library.nan)
    loss = axis_means(cost.reshape(-1), 0)
    y = library.where(x > 0, 1, small) / (1 + small)
    return library.asarray(loss, x.dtype), y.astype(x.dtype, copy=False)


def _native(x: Array, t: Array) -> tuple[Array, Array]:
    x, t, y = numpy.ascontiguousarray(x), numpy.ascontiguousarray(t), workspace.empty(x.shape, x.dtype)
    total = add_ranges(_FORWARD, x.dtype, x.size, _OF_EXP_AND_LOG, (x, t, y))
    return numpy.asarray(total / x.size, x.dtype), y


@profiling.operation
def binary_cross_entropy_backward(y: Array, t: Array) -> Array:
    """Return the gradient with respect to the scores: (y - t) / elements, dtype of ``y``.

    Args:
        y: probabilities from ``binary_cross_entropy``.
        t: the same targets.

    Raises:
        TypeError: probabilities are not float32 or float64, or targets are not numbers.
        ValueError: shapes do not fit.
    """
    require_arrays(y=y)
    check_wide_dtype("binary_cross_entropy_backward", y.dtype)
    targets.check_form(t, y.shape)
    return implementation(y, _backward_with_library, _backward_with_library, _backward_native)(
        y, targets.as_outputs(t, y)
    )


def _backward_with_library(y: Array, t: Array) -> Array:
    return (y - t) / max(y.size, 1)


def _backward_native(y: Array, t: Array) -> Array:
    y, t, dx = numpy.ascontiguousarray(y), numpy.ascontiguousarray(t), workspace.empty(y.shape, y.dtype)
    _BACKWARD.share(y.dtype, y.size, 3 * y.itemsize, y, t, dx, y.size)
    return dx
