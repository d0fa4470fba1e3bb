"""Rows of a matrix by their indices, and the sum of gradients by row: the two directions of an embedding.

A row's gradients are added up in the order of their places, from the first to the last, so the bits are the same on
every device and for any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy

from backend import (
    array_module,
    profiling,
    require_active,
    require_arrays,
    require_plain,
    require_same_device,
    workspace,
)
from backend.types import Array
from kernels.core.checks import check_dtype
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel
from kernels.core.layout import target
from kernels.core.native import Function
from kernels.labels import find_out_of_range, words_of

_SUM_ROWS = Function("embedding.c", "sum_rows")
_ROWS, _GATHER, _SORT, _SUM_SORTED = (
    Kernel("embedding.cu", name) for name in ("rows_of_indices", "gather_rows", "sort_by_row", "sum_sorted")
)


@profiling.operation
def embedding(weight: Array, indices: Array) -> Array:
    """Return the rows of ``weight`` (count, size) at ``indices``, a new array (*indices.shape, size).

    Args:
        weight: floating, any strides.
        indices: any integer dtype, any shape.

    Raises:
        TypeError: ``weight`` is not floating, or indices are not integers; host and device arrays are mixed, or lie on
            another device than the active one.
        ValueError: ``weight`` is not a matrix; or, on the CPU, an index is out of range (the first such is named). On a
            GPU its row is NaN then, since raising would wait for the device.

    Examples:
        >>> from backend import xp
        >>> from kernels.embedding import embedding
        >>> embedding(xp.asarray([[1.0, 2.0], [3.0, 4.0]]), xp.asarray([1, 1, 0]))
        array([[3., 4.],
               [3., 4.],
               [1., 2.]])
    """
    require_same_device(weight, indices)
    require_active(weight, "weight")
    if weight.ndim != 2:
        raise ValueError(f"weight must be a matrix (count, size), got shape {weight.shape}")
    check_dtype("embedding", weight)
    check_indices(indices, len(weight))
    return implementation(weight, _embedding_numpy, _embedding_cuda)(weight, indices)


def _embedding_numpy(weight: Array, indices: Array) -> Array:
    rows = workspace.empty((*indices.shape, weight.shape[1]), weight.dtype)
    if rows.size:
        numpy.take(weight, indices, axis=0, out=rows, mode="clip")  # "raise" would copy once more: they were checked
    return rows


def _embedding_cuda(weight: Array, indices: Array) -> Array:
    library = array_module(weight)
    rows = library.empty((*indices.shape, weight.shape[1]), weight.dtype)
    if rows.size:
        places = _rows_on_device(indices, len(weight))
        _GATHER(rows.size, library.ascontiguousarray(weight), places, rows, rows.size, *weight.shape, places.size)
    return rows


@profiling.operation
def embedding_backward(dout: Array, indices: Array, out: Array) -> Array:
    """Compute the gradient of ``embedding``'s weight: a row of ``out`` becomes the sum of the gradients of its places.

    Gradients are added in the order of their places, in the dtype of sums (float32 for float16), and the sum is rounded
    once. Rows without a place become 0.

    Args:
        dout: gradients (*indices.shape, size), any strides.
        indices: as of ``embedding``; on a GPU those out of range add nothing.
        out: (count, size), dtype of ``dout``.

    Returns:
        ``out``.

    Raises:
        TypeError: ``dout`` is not floating, ``out`` is of another dtype, or as of ``embedding``.
        ValueError: shapes do not fit; or, on the CPU, an index is out of range.
    """
    require_same_device(dout, indices, out)
    require_active(dout, "dout")
    if out.ndim != 2:
        raise ValueError(f"out must be a matrix (count, size), got shape {out.shape}")
    check_dtype("embedding", dout)
    if out.dtype != dout.dtype:
        raise TypeError(f"embedding needs one dtype, got dout {dout.dtype} and out {out.dtype}")
    check_indices(indices, len(out))
    if dout.shape != (*indices.shape, out.shape[1]):
        raise ValueError(f"dout must be of {(*indices.shape, out.shape[1])}, got {dout.shape}")
    compute = implementation(dout, _embedding_backward_numpy, _embedding_backward_cuda, _embedding_backward_native)
    rows = dout.reshape(indices.size, out.shape[1])
    compute(rows, indices, out)
    return out


def _embedding_backward_numpy(rows: Array, indices: Array, out: Array) -> None:
    total = target(out, acc_dtype(rows.dtype))
    total.fill(0)
    numpy.add.at(total, indices.reshape(-1), rows.astype(total.dtype, copy=False))
    if total is not out:
        out[...] = total


def _embedding_backward_native(rows: Array, indices: Array, out: Array) -> None:
    dtype, (count, size) = rows.dtype, out.shape
    total = target(out, acc_dtype(dtype))
    given = numpy.ascontiguousarray(rows), numpy.ascontiguousarray(indices.reshape(-1), "int32"), total
    work = (rows.nbytes + total.nbytes) // max(count, 1)
    _SUM_ROWS.share(dtype, count, work, *given, indices.size, count, size)
    if total is not out:
        out[...] = total


def _embedding_backward_cuda(rows: Array, indices: Array, out: Array) -> None:
    library, places = array_module(rows), indices.size
    total = target(out, rows.dtype)
    total.fill(0)
    if rows.size:
        order, ordered = library.empty(places, "int32"), library.empty(places, "int32")
        _SORT(places, _rows_on_device(indices, len(out)), order, ordered, places)
        rows = library.ascontiguousarray(rows)
        _SUM_SORTED(rows.size, rows, order, ordered, total, rows.size, places, *out.shape)
    if total is not out:
        out[...] = total


def _rows_on_device(indices: Array, count: int) -> Array:
    """Return indices of any integer dtype as int32 (places,), -1 where one is out of range."""
    words, of_each = words_of(indices.reshape(-1))
    rows = array_module(indices).empty(indices.size, "int32")
    _ROWS(rows.size, words, rows, rows.size, count, of_each)
    return rows


def check_indices(indices: Any, count: int) -> None:
    """Check indices of ``count`` rows; their values are looked at on the host.

    Raises:
        TypeError: they are not an array, or not of an integer dtype.
        ValueError: one is out of range; the first such is named.
    """
    require_arrays(indices=indices)
    require_plain(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"indices must be of an integer dtype, got {indices.dtype}")
    if not isinstance(indices, numpy.ndarray):
        return
    flat = indices.reshape(-1)
    bad = find_out_of_range(flat, count)
    if bad is not None:
        place = tuple(int(i) for i in numpy.unravel_index(bad, indices.shape))
        at = place[0] if len(place) == 1 else place
        raise ValueError(f"index {flat[bad]} at {at} is out of range: expected 0 to {count - 1}")
