"""Turn labels into weighted distributions: label smoothing, class weights and ignored labels in one matrix."""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module, profiling, require_active, require_plain, workspace
from backend.types import Array
from kernels import labels
from kernels.core import native
from kernels.core.checks import check_wide_dtype
from kernels.core.native import Function
from kernels.sums import axis_sums

_NATIVE = Function("soft_targets.c", "soft_targets")


@profiling.operation
def soft_targets(
    t: Array,
    shape: tuple[int, int],
    dtype: Any,
    *,
    smoothing: float = 0.0,
    weights: Array | None = None,
    ignore_index: int | None = None,
) -> tuple[Array, Array]:
    """Return the targets whose mean cross-entropy over N rows is the weighted mean of the labels' cross-entropies.

    A label's distribution q is (1 - smoothing)·one-hot + smoothing / classes (Szegedy et al., 2016, section 7); class c
    costs w[c]·q[c]·(-log y[c]); the mean divides by the sum of w[label] over the samples that are not ignored. A row of
    a distribution counts as its classes' weighted mean, so that a one-hot row is what its index is.

    Args:
        t: class indices (N,), or distributions (N, classes).
        shape: (N, classes).
        dtype: of the result, float32 or float64: the sum of weights may be larger than any number of float16.
        smoothing: from 0 to below 1.
        weights: w (classes,), of ``dtype``, on the device of ``t``; None for ones.
        ignore_index: the label of samples that are left out; of class indices only.

    Returns:
        targets: (N, classes) of ``dtype``: rows of q·w·N / Σw. Zeros for ignored samples. On a GPU a label out of range
            makes its row NaN.
        weight: Σw, 0-d of ``dtype``.

    Raises:
        TypeError: ``dtype`` or that of the labels is another, or distributions are given with ``ignore_index``.
        ValueError: shapes do not fit; or, on the CPU, a label is out of range or not finite.
    """
    require_plain(t)
    require_active(t, "t")
    check_wide_dtype("soft_targets", numpy.dtype(dtype))
    samples, classes = shape
    if weights is not None and weights.shape != (classes,):
        raise ValueError(f"weights must have shape {(classes,)}, got {weights.shape}")
    library = array_module(t)
    if ignore_index is not None and t.ndim != 1:
        raise TypeError(f"ignore_index needs labels as class indices (N,), got {t.dtype}{list(t.shape)}")
    counted = which_count(t, ignore_index)
    labels.check(t if counted is None else t * counted, shape)
    if library is numpy and t.ndim == 1 and native.computes(numpy.dtype(dtype)):
        return _of_indices_native(t, shape, numpy.dtype(dtype), smoothing, weights, counted)
    if t.ndim == 1:
        q = (t[:, None] == library.arange(classes)).astype(dtype)
        if counted is not None:
            q *= counted[:, None]
        if library is not numpy:
            fits = (t >= 0) & (t < classes)
            q = library.where((fits if counted is None else fits | ~counted)[:, None], q, library.nan).astype(dtype)
    else:
        q = t.astype(dtype)  # a copy
    if t.ndim == 1 or weights is not None:
        weight = library.asarray(axis_sums(q if weights is None else q * weights, (0, 1)), dtype)
    else:
        weight = library.full((), samples, dtype)
    if smoothing:
        shares = axis_sums(q, 1, keepdims=True) * (smoothing / classes)
        q *= 1 - smoothing
        q += shares
    if weights is not None:
        q *= weights
    q *= _factor(samples, weight).astype(dtype)
    return q, weight


def _factor(samples: int, weight: Array) -> Array:
    """Return samples / weight, or 0 where the weight is 0."""
    library = array_module(weight)
    return library.where(weight == 0, 0, samples / library.where(weight == 0, 1, weight))


def _of_indices_native(
    t: Array, shape: tuple[int, int], dtype: numpy.dtype, smoothing: float, weights: Array | None, counted: Array | None
) -> tuple[Array, Array]:
    """Compute ``soft_targets`` of class indices by the C kernel, which takes -1 for an ignored label."""
    indices, q = numpy.ascontiguousarray(t, "int32"), workspace.empty(shape, dtype)
    learned = indices
    if counted is not None:
        indices, learned = numpy.where(counted, indices, -1), indices[counted]
    if weights is not None:
        weights = numpy.ascontiguousarray(weights, dtype)
    weight = numpy.asarray(len(learned) if weights is None else weights[learned].sum(), dtype)
    given = (indices, weights, q, smoothing, float(_factor(shape[0], weight)), *shape)
    _NATIVE.share(dtype, shape[0], shape[1] * dtype.itemsize, *given)
    return q, weight


def which_count(t: Array, ignore_index: int | None) -> Array | None:
    """Return where labels are not ``ignore_index`` (bool), or None if all count: it is None or ``t`` cannot hold it."""
    if ignore_index is None or t.dtype.kind not in "iu":
        return None
    info = numpy.iinfo(t.dtype)
    return t != ignore_index if info.min <= ignore_index <= info.max else None
