"""The multi-class hinge loss of Weston and Watkins, "Support vector machines for multi-class pattern recognition"
(1999).
"""

from __future__ import annotations

import numpy

from backend import array_module, profiling, require_active, require_arrays, workspace
from backend.types import Array
from kernels import labels
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.native import Function
from kernels.sums import axis_sums

_HINGE = Function("hinge.c", "hinge")


@profiling.operation
def hinge(x: Array, t: Array) -> tuple[Array, Array]:
    """Compute the mean over samples of Σ max(0, x[i, j] - x[i, t] + 1) over the wrong classes j, and its gradient.

    Args:
        x: scores (N, classes).
        t: class indices (N,), any integer dtype.

    Returns:
        loss: 0-d, the dtype of ``x`` (float32 for float16), on the device. On a GPU a label out of range makes it NaN,
            since raising would wait for the device.
        dx: (N, classes), dtype of ``x``; 0 where a margin is exactly 0.

    Raises:
        TypeError: labels are not integers.
        ValueError: shapes do not fit; or, on the CPU, a label is out of range (the first such is named).
    """
    array_module(x, t)
    require_active(x, "x")
    require_arrays(t=t)
    if x.ndim != 2:
        raise ValueError(f"x must be scores (N, classes), got shape {x.shape}")
    labels.check(t, x.shape, distributions=False)
    return implementation(x, _with_library, _with_library, _native)(x, t)


def _with_library(x: Array, t: Array) -> tuple[Array, Array]:
    library, dtype, (samples, classes) = array_module(x), acc_dtype(x.dtype), x.shape
    correct = t[:, None] == library.arange(classes)
    scores = x.astype(dtype, copy=False)
    of_label = axis_sums(library.where(correct, scores, 0), 1, keepdims=True)
    if library is not numpy:
        of_label = library.where(((t >= 0) & (t < classes))[:, None], of_label, library.nan)
    margins = library.maximum(scores - of_label + 1, 0)
    margins = library.where(correct, 0, margins)
    factor = 1 / max(samples, 1)
    loss = axis_sums(margins, (0, 1)) * factor
    dx = (margins > 0).astype(dtype)
    dx -= correct * axis_sums(dx, 1, keepdims=True)
    dx *= factor
    return library.asarray(loss, dtype), dx.astype(x.dtype, copy=False)


def _native(x: Array, t: Array) -> tuple[Array, Array]:
    dtype, (samples, classes), factor = x.dtype, x.shape, 1 / max(len(x), 1)
    dx, losses = workspace.empty(x.shape, dtype), numpy.empty(samples, acc_dtype(dtype))
    given = (numpy.ascontiguousarray(x), numpy.ascontiguousarray(t, "int32"), dx, losses, factor, samples, classes)
    _HINGE.share(dtype, samples, 2 * classes * x.itemsize, *given)
    return numpy.asarray(losses.sum() * factor, losses.dtype), dx
