"""Sums of arrays: of a matrix's columns, along some axes, of all numbers' squares. float16 is summed in float32.

On a GPU they are kernels of this project: what CuPy's ``sum`` launches there differs by its settings and libraries, and
so do the last bits. A user's own ``xp.sum`` remains CuPy's.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy

from backend import array_module, profiling, require_active
from backend.types import Array
from kernels.core.columns import columns
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.layout import target
from kernels.core.native import Function
from kernels.core.ranges import add_ranges
from kernels.core.tiling import power_of_two

_RANGES, _SQUARES, _PARTIALS = (Kernel("sums.cu", name) for name in ("sum_ranges", "square_ranges", "sum_partials"))
_SQUARES_NATIVE = Function("sums.c", "square_sums")

_COLUMNS, _TOTAL, _MIDDLE = (Function("sums.c", name) for name in ("column_sums", "column_total", "middle_sums"))
_WIDEST = 16  # numbers in a vector

_DOUBLE = numpy.dtype("float64")
_ROWS = 32  # that a thread adds up before a second stage pays for its launch
_MOST_BLOCKS = 1024  # fill the largest GPUs; more would only be more partial sums


@profiling.operation
def column_sums(matrix: Array, out: Array | None = None) -> Array:
    """Compute the sum of each column of ``matrix`` (M, N) as (N,), into ``out`` if given, else in the matrix's dtype.

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
    return implementation(matrix, _column_sums_numpy, _column_sums_cuda, _column_sums_native)(matrix, out)


def _column_sums_numpy(matrix: Array, out: Array | None) -> Array:
    total = numpy.empty(matrix.shape[1], matrix.dtype) if out is None else out
    total[...] = matrix.sum(axis=0, dtype=numpy.float64)
    return total


def _column_sums_native(matrix: Array, out: Array | None) -> Array:
    total = _column_totals(matrix, None if out is None else target(out, acc_dtype(matrix.dtype)))
    if out is None:
        return total.astype(matrix.dtype, copy=False)
    if total is not out:
        out[...] = total
    return out


def _column_totals(matrix: Array, total: Array | None = None) -> Array:
    """Return the column sums of a matrix in the dtype of sums, by C kernels."""
    return column_totals(_COLUMNS, numpy.ascontiguousarray(matrix), (), total)


def column_totals(kernel: Function, matrix: Array, others: tuple[Array, ...], total: Array | None = None) -> Array:
    """Return the column sums that a C kernel makes of a C-contiguous matrix, in the dtype of sums.

    Args:
        kernel: ``column_sums`` of sums.c, or another with such parameters.
        others: its arrays between the matrix and the sums.
        total: receives the sums, if given.
    """
    dtype, (rows, channels) = acc_dtype(matrix.dtype), matrix.shape
    cut, total = columns(rows, channels), numpy.empty(channels, dtype) if total is None else total
    sums = numpy.empty((cut.parts, channels), dtype)
    given = matrix, *others, sums, total
    sizes = sums.size, matrix.size, cut.width, cut.block_rows, cut.parts, channels, cut.blocks
    if not kernel.share(matrix.dtype, cut.blocks, cut.block_size * matrix.itemsize, *given, *sizes):
        _TOTAL(matrix.dtype, sums, total, cut.parts, channels)
    return total


def total_of_parts(sums: Array, dtype: numpy.dtype) -> Array:
    """Return the column sums of what a C kernel of a dtype left for each part: (parts, N), in the dtype of sums."""
    total = numpy.empty(sums.shape[1], sums.dtype)
    _TOTAL(dtype, sums, total, *sums.shape)
    return total


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
    return implementation(x, _axis_sums_numpy, _axis_sums_cuda, _axis_sums_native)(x, _several(axes, x.ndim), keepdims)


def _axis_sums_numpy(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    return x.sum(axis=axes, dtype=acc_dtype(x.dtype), keepdims=keepdims)


def _axis_sums_native(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Sum along neighbouring axes with enough numbers behind them, which NumPy adds up a short row at a time."""
    if not axes or axes != tuple(range(axes[0], axes[-1] + 1)):
        return _axis_sums_numpy(x, axes, keepdims)
    outer, length, inner = _form(x.shape, axes[0], axes[-1])
    if outer == 1 and length:
        sums = _column_totals(x.reshape(length, inner))
    elif inner >= _WIDEST and length:
        x, sums = numpy.ascontiguousarray(x), numpy.empty((outer, inner), acc_dtype(x.dtype))
        item_bytes = length * inner * x.itemsize
        _MIDDLE.share(x.dtype, outer, item_bytes, x, sums, outer, length, inner)
    else:
        return _axis_sums_numpy(x, axes, keepdims)
    return sums.reshape(_left(x.shape, axes, keepdims))


def _left(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """Return the shape of an array summed along some axes."""
    if keepdims:
        return tuple(1 if axis in axes else length for axis, length in enumerate(shape))
    return tuple(length for axis, length in enumerate(shape) if axis not in axes)


def _form(shape: tuple[int, ...], first: int, last: int) -> tuple[int, int, int]:
    """Return the lengths before, along and behind axes from ``first`` to ``last``."""
    return math.prod(shape[:first]), math.prod(shape[first : last + 1]), math.prod(shape[last + 1 :])


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
    return implementation(x, _axis_means_numpy, _axis_means_cuda, _axis_means_native)(
        x, _several(axes, x.ndim), keepdims, dtype
    )


def _axis_means_numpy(x: Array, axes: tuple[int, ...], keepdims: bool, dtype: numpy.dtype) -> Array:
    return x.mean(axis=axes, dtype=acc_dtype(x.dtype), keepdims=keepdims).astype(dtype, copy=False)


def _axis_means_native(x: Array, axes: tuple[int, ...], keepdims: bool, dtype: numpy.dtype) -> Array:
    sums = _axis_sums_native(x, axes, keepdims)
    terms = math.prod(x.shape[axis] for axis in axes)
    return numpy.true_divide(sums, terms, dtype=sums.dtype).astype(dtype, copy=False)


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
    x = numpy.ascontiguousarray(x)
    return add_ranges(_SQUARES_NATIVE, x.dtype, x.size, x.itemsize, (x,))


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
    kept = _left(shape, axes, keepdims)
    while left:
        last = first = left.pop()
        while left and left[-1] == first - 1:
            first = left.pop()
        form = _form(shape, first, last)
        shape = shape[:first] + shape[last + 1 :]
        sums = library.empty(shape, acc_dtype(x.dtype) if left else dtype)
        _sum_middle(x, form, sums, 1 if left else divisor)
        x = sums
    return x.reshape(kept)


class Tiling(NamedTuple):
    """A stage's cut of (outer, length, inner), as ``core/sum_tiles.cu`` describes it, in the order of its arguments."""

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
    """Sum ``x``, as an array of a shape (outer, length, inner), along the middle axis into ``out``; divide."""
    if out.size:
        x = x if x.flags.c_contiguous else array_module(x).ascontiguousarray(x)
        sum_terms(first, (x,), shape, out, divisor)


def sum_terms(
    first: Kernel, arrays: tuple[Array, ...], shape: tuple[int, int, int], out: Array, divisor: int, *more: Any
) -> None:
    """Sum the terms that a kernel makes of arrays on a GPU, (outer, length, inner), along the middle axis; divide.

    Args:
        first: a kernel of the first stage, as ``core/sum_tiles.cu`` describes it.
        arrays: which it reads, C-contiguous.
        out: (outer, inner), C-contiguous, of the dtype of its sums or of the first array; not empty.
        more: its arguments behind the divisor.
    """
    block, dtype = block_size(), _DOUBLE if first is _SQUARES else acc_dtype(arrays[0].dtype)
    cut, last = stages(*shape, block)
    if cut.ranges == 1 and out.dtype == dtype:
        first(cut.tiles * block, *arrays, out, *cut, divisor, *more)
        return
    sums = array_module(out).empty((cut.outer, cut.ranges, cut.inner), dtype)
    first(cut.tiles * block, *arrays, sums, *cut, 1, *more)
    _PARTIALS(last.tiles * block, sums, out, *last, divisor)
