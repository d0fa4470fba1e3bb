"""Sums of arrays: of a matrix's columns, along some axes, of all numbers' squares. float16 is summed in float32.

On a GPU they are kernels of this project: what CuPy's ``sum`` launches there differs by its settings and libraries, and
so do the last bits. A user's own ``xp.sum`` remains CuPy's.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy

from backend import array_module, profiling, require_active, threads
from backend.types import Array
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.layout import folded
from kernels.core.native import Function, share
from kernels.core.tiling import pieces, power_of_two
from kernels.gemm import piece_sums

_RANGES, _SQUARES, _PARTIALS = (Kernel("sums.cu", name) for name in ("sum_ranges", "square_ranges", "sum_partials"))
_SQUARES_NATIVE = Function("sums.c", "square_sums")

_FEW = 1 << 13
"""Numbers in a matrix up to which ``sum`` is faster on a CPU than a product with ones."""

_RANGE = 1 << 14
"""Numbers whose squares a C kernel adds up by itself."""

_DOUBLE = numpy.dtype("float64")
_ROWS = 32  # that a thread adds up before a second stage pays for its launch
_MOST_BLOCKS = 1024  # fill the largest GPUs; more would only be more partial sums


@profiling.operation
def column_sums(matrix: Array, out: Array | None = None) -> Array:
    """Compute the sum of each column of ``matrix`` (M, N) as (N,), into ``out`` if given, else in the matrix's dtype.

    On a CPU by products of rows of ones with pieces of the matrix: BLAS reads a tall one at more than twice the speed
    of ``sum(axis=0)``.

    Raises:
        TypeError: host and device arrays are mixed, or lie on another device than the active one.
        ValueError: ``matrix`` has not two dimensions, or ``out`` another shape.
    """
    array_module(matrix, out)
    require_active(matrix)
    if matrix.ndim != 2:
        raise ValueError(f"column sums are those of a matrix (M, N), got shape {matrix.shape}")
    if out is not None and out.shape != matrix.shape[1:]:
        raise ValueError(f"out must have shape {matrix.shape[1:]}, got {out.shape}")
    return implementation(matrix, _column_sums_numpy, _column_sums_cuda)(matrix, out)


def _column_sums_numpy(matrix: Array, out: Array | None) -> Array:
    dtype = acc_dtype(matrix.dtype)
    if matrix.size <= _FEW:
        if out is not None and out.dtype == dtype:
            return numpy.add.reduce(matrix, axis=0, dtype=dtype, out=out)
        total = numpy.add.reduce(matrix, axis=0, dtype=dtype)
    else:
        total = _sums_by_products(matrix, dtype)
    if out is None:
        return total.astype(matrix.dtype, copy=False)
    out[...] = total
    return out


def _column_sums_cuda(matrix: Array, out: Array | None) -> Array:
    if out is not None and out.flags.c_contiguous and out.dtype in (matrix.dtype, acc_dtype(matrix.dtype)):
        _sum_middle(matrix, (1, *matrix.shape), out)
        return out
    total = array_module(matrix).empty(matrix.shape[1], matrix.dtype if out is None else acc_dtype(matrix.dtype))
    _sum_middle(matrix, (1, *matrix.shape), total)
    if out is None:
        return total
    out[...] = total
    return out


def _sums_by_products(matrix: Array, dtype: numpy.dtype) -> Array:
    """Compute the column sums of a matrix in ``dtype``, piece by piece."""
    rows, fold = folded(matrix)
    cuts = pieces(len(rows), rows[:1].size * dtype.itemsize, numpy)

    def collect(index: int) -> None:
        sums[index] = piece_sums(rows[cuts[index]].astype(dtype, copy=False), fold)

    with threads.single_threaded_blas():
        if len(cuts) == 1:
            return piece_sums(rows.astype(dtype, copy=False), fold)
        sums = numpy.empty((len(cuts), matrix.shape[1]), dtype)
        threads.run(collect, range(len(cuts)))
        return sums.sum(axis=0)


def axis_sums(x: Array, axes: int | tuple[int, ...], keepdims: bool = False) -> Array:
    """Compute the sums of ``x`` along some of its axes.

    Args:
        x: float16, float32 or float64; any strides.
        axes: one or several different ones, of -``x.ndim`` to ``x.ndim`` - 1.
        keepdims: keep the axes, with length 1.

    Raises:
        ValueError: an axis is out of range, or given twice.

    Returns:
        The sums in the dtype of sums: float32 for float16, otherwise that of ``x``.

    Examples:
        >>> from backend import xp
        >>> from kernels.sums import axis_sums
        >>> axis_sums(xp.ones((2, 3, 4)), (0, 2))
        array([8., 8., 8.])
    """
    require_active(x)
    return implementation(x, _axis_sums_numpy, _axis_sums_cuda)(x, _several(axes, x.ndim), keepdims)


def _axis_sums_numpy(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    return x.sum(axis=axes, dtype=acc_dtype(x.dtype), keepdims=keepdims)


def _axis_sums_cuda(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    return _along_axes(x, axes, keepdims, acc_dtype(x.dtype), 1)


def axis_means(x: Array, axes: int | tuple[int, ...], keepdims: bool = False, dtype: Any = None) -> Array:
    """Compute the means of ``x`` along some of its axes: ``axis_sums`` divided by the number of terms, at least one.

    Args:
        x, axes, keepdims: as for ``axis_sums``; errors as there.
        dtype: that of the result, to which it is rounded once: by default the dtype of sums, or that of ``x``.
    """
    require_active(x)
    dtype = acc_dtype(x.dtype) if dtype is None else numpy.dtype(dtype)
    return implementation(x, _axis_means_numpy, _axis_means_cuda)(x, _several(axes, x.ndim), keepdims, dtype)


def _axis_means_numpy(x: Array, axes: tuple[int, ...], keepdims: bool, dtype: numpy.dtype) -> Array:
    return x.mean(axis=axes, dtype=acc_dtype(x.dtype), keepdims=keepdims).astype(dtype, copy=False)


def _axis_means_cuda(x: Array, axes: tuple[int, ...], keepdims: bool, dtype: numpy.dtype) -> Array:
    terms = math.prod(x.shape[axis] for axis in axes)
    return _along_axes(x, axes, keepdims, dtype, terms)


@profiling.operation
def square_sum(x: Array) -> Array:
    """Compute the sum of the squares of all numbers of ``x``: 0-d, float64 whatever the dtype of ``x``."""
    return implementation(x, _square_sum_numpy, _square_sum_cuda, _square_sum_native)(x)


def _square_sum_numpy(x: Array) -> Array:
    wide = x.astype(numpy.float64)
    wide *= wide
    return wide.sum()


def _square_sum_native(x: Array) -> Array:
    x, ranges = numpy.ascontiguousarray(x), -(-x.size // _RANGE)
    sums = numpy.empty(ranges)
    given = (x, sums, x.size, ranges, _RANGE)
    share(ranges, _RANGE * x.itemsize, lambda first, last: _SQUARES_NATIVE(x.dtype, *given, first, last))
    return sums.sum()


def _square_sum_cuda(x: Array) -> Array:
    total = array_module(x).empty((), numpy.float64)
    _sum_middle(x, (1, x.size, 1), total, first=_SQUARES)
    return total


def _several(axes: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Return axes counted from 0, in ascending order; raise the errors of ``axis_sums``."""
    given = (axes,) if isinstance(axes, int) else axes
    found = tuple(sorted(axis + ndim if axis < 0 else axis for axis in given))
    if len(set(found)) < len(found) or not set(found) <= set(range(ndim)):
        raise ValueError(f"axes must be different ones from {-ndim} to {ndim - 1}, got {axes}")
    return found


def _along_axes(x: Array, axes: tuple[int, ...], keepdims: bool, dtype: numpy.dtype, divisor: int) -> Array:
    """Sum along axes by a call for each run of neighbouring ones, the last run first; divide in the last call."""
    library, shape = array_module(x), x.shape
    left = list(axes)
    kept = tuple(1 if axis in left else length for axis, length in enumerate(shape))
    while left:
        last = first = left.pop()
        while left and left[-1] == first - 1:
            first = left.pop()
        form = math.prod(shape[:first]), math.prod(shape[first : last + 1]), math.prod(shape[last + 1 :])
        shape = shape[:first] + shape[last + 1 :]
        sums = library.empty(shape, acc_dtype(x.dtype) if left else dtype)
        _sum_middle(x, form, sums, 1 if left else divisor)
        x = sums
    return x.reshape(kept) if keepdims else x


class Tiling(NamedTuple):
    """A stage's cut of (outer, length, inner), as ``sums.cu`` describes it, in the order of its arguments."""

    tiles: int
    outer: int
    length: int
    inner: int
    width: int
    lanes: int
    ranges: int
    range_rows: int


@functools.lru_cache(maxsize=1024)
def stages(outer: int, length: int, inner: int, block: int) -> tuple[Tiling, Tiling]:
    """Return the cuts of both stages, by shape and threads in a block alone: a sum has the same bits on every GPU."""
    width = min(power_of_two(inner), 32)
    lanes, tiles = _lanes_and_tiles(outer, length, inner, width, block)
    ranges = max(min(-(-length // (lanes * _ROWS)), _MOST_BLOCKS // max(tiles, 1)), 1)
    range_rows = max(-(-length // ranges), 1)
    ranges = max(-(-length // range_rows), 1)
    first = Tiling(tiles * ranges, outer, length, inner, width, lanes, ranges, range_rows)
    lanes, tiles = _lanes_and_tiles(outer, ranges, inner, width, block)
    return first, Tiling(tiles, outer, ranges, inner, width, lanes, 1, ranges)


def _lanes_and_tiles(outer: int, length: int, inner: int, width: int, block: int) -> tuple[int, int]:
    """Return how many threads of a block share a column, and how many tiles one range makes."""
    lanes = min(power_of_two(length), block // width)
    return lanes, -(-outer // (block // (width * lanes))) * -(-inner // width)


def _sum_middle(x: Array, shape: tuple[int, int, int], out: Array, divisor: int = 1, first: Kernel = _RANGES) -> None:
    """Sum ``x``, as an array of a shape (outer, length, inner), along the middle axis into ``out``; divide.

    ``out`` is C-contiguous and of the dtype of the first kernel's sums, or of ``x``.
    """
    if not out.size:
        return
    library, block = array_module(x), block_size()
    if not x.flags.c_contiguous:
        x = library.ascontiguousarray(x)
    dtype = _DOUBLE if first is _SQUARES else acc_dtype(x.dtype)
    cut, last = stages(*shape, block)
    if cut.ranges == 1 and out.dtype == dtype:
        first(cut.tiles * block, x, out, *cut, divisor)
        return
    sums = library.empty((cut.outer, cut.ranges, cut.inner), dtype)
    first(cut.tiles * block, x, sums, *cut, 1)
    _PARTIALS(last.tiles * block, sums, out, *last, divisor)
