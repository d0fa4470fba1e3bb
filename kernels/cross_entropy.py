"""Cross-entropy of probabilities; that of scores, which cannot overflow, is in ``kernels.softmax``."""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module, profiling, require_arrays
from backend.types import Array
from kernels import labels
from kernels.core.dtypes import acc_dtype


@profiling.operation
def cross_entropy(y: Array, t: Any) -> Array:
    """Return the mean of -log y[label] for probabilities ``y`` (N, classes) or one sample (classes,).

    Args:
        t: labels as class indices or as one-hot rows.

    Returns:
        0-d. A probability of 0 counts as the smallest normal number of the dtype, so that the loss is finite.
    """
    require_arrays(y=y)
    library = array_module(y, t) if hasattr(t, "ndim") else array_module(y)
    t = library.asarray(t)
    if y.ndim == 1:
        y, t = y[None], t[None]
    if y.ndim != 2:
        raise ValueError(f"scores are (N, classes), got shape {y.shape}")
    labels.check(t, y.shape)
    dtype = acc_dtype(y.dtype)
    logarithm = library.log(library.maximum(y.astype(dtype, copy=False), float(numpy.finfo(dtype).tiny)))
    picked = _pick(logarithm, t, library) if t.ndim == 1 else logarithm * t
    return -picked.sum(dtype=dtype) / max(len(y), 1)


def _pick(rows: Array, t: Array, library: Any) -> Array:
    """Return rows[i, t[i]], or NaN where t[i] is out of range (on a device: on the CPU that was refused)."""
    picked = rows[library.arange(len(rows)), t]
    if library is numpy:
        return picked
    return library.where((t >= 0) & (t < rows.shape[1]), picked, library.nan)
