"""Mean and variance of the columns of a matrix, and how batch normalization's kernels cut it.

Kernels that take sums leave a partial result for each range of rows. In training the pass that needs the sums puts the
ranges together (``kernels.batch_norm``); ``batch_statistics`` alone has a second launch for that.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy

from backend import array_module, profiling, require_active
from backend.types import Array
from kernels.core.columns import Columns, columns
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.native import Function
from kernels.core.tiling import power_of_two

_MOMENTS, _STATISTICS, _JOIN = (
    Kernel("batch_norm.cu", f"batch_norm_{name}") for name in ("moments", "statistics", "join")
)
_PARTS, _JOINED = (Function("batch_norm.c", f"batch_norm_{name}") for name in ("moments", "statistics"))


class Moments(NamedTuple):
    """Mean and sum of squared deviations of the columns of a matrix, in parts of its rows.

    The operation that writes the matrix may leave them, so that ``kernels.batch_norm`` need not read it for them.

    Attributes:
        means, squares: (parts, C), in the dtype of sums.
        rows: of the matrix.
        cut: into parts, as ``moments`` has it on this device.
    """

    means: Array
    squares: Array
    rows: int
    cut: Any


class Lines(NamedTuple):
    """How a C kernel goes through the rows of pixels of an output: in blocks, each measured while it is in cache.

    Attributes:
        moments: to be filled; or None where nothing is measured.
        each: rows of pixels of a block.
        blocks: of them.
    """

    moments: Moments | None
    each: int
    blocks: int

    @property
    def arrays(self) -> tuple[Array | None, Array | None]:
        return (None, None) if self.moments is None else self.moments[:2]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Numbers of each of the arrays, of a wide row of the matrix, and rows of pixels and wide rows of a block."""
        if self.moments is None:
            return 0, 0, self.each, 0
        return self.moments.means.size, self.moments.cut.width, self.each, self.moments.cut.block_rows


class Tiling(NamedTuple):
    """The kernels' cut of (M, C): blocks have ``width`` columns by ``range_rows`` rows."""

    width: int
    range_rows: int
    ranges: int
    blocks: int


_MOST_SUMS = 256  # blocks that leave a partial result: two for each processor of the largest GPUs; all are read again
_MOST_BLOCKS = 1024  # blocks of a pass that writes its results, each of which reads all ranges of its columns
_CHUNK = 8  # of batch_norm.cu: rows that a thread has at least in a sum
_PASS_ROWS = 32  # in a pass
_JOINED_AT_LEAST = 16  # ranges, where there are too many


def tiling_of(rows: int, channels: int) -> Tiling:
    """Return the cut for sums, by shapes alone: results have the same bits on every GPU."""
    return _tiling(rows, channels, _CHUNK, _MOST_SUMS)


def pass_tiling(rows: int, channels: int) -> Tiling:
    """Return the cut for the passes, on which no bit depends."""
    return _tiling(rows, channels, _PASS_ROWS, _MOST_BLOCKS)


def _tiling(rows: int, channels: int, least_rows: int, most_blocks: int) -> Tiling:
    width = _width(channels)
    across = -(-channels // width)
    ranges = max(min(-(-rows // (block_size() // width * least_rows)), most_blocks // max(across, 1)), 1)
    return in_ranges(rows, channels, max(-(-rows // ranges), 1))


@functools.lru_cache(maxsize=1024)
def in_ranges(rows: int, channels: int, range_rows: int) -> Tiling:
    """Return the cut into ranges of so many rows, of which the last may have fewer."""
    width, ranges = _width(channels), max(-(-rows // range_rows), 1)
    return Tiling(width, range_rows, ranges, -(-channels // width) * ranges)


def _width(channels: int) -> int:
    return min(power_of_two(channels), 32)


def move_running(running: tuple[Array, Array], found: tuple[Array, Array], momentum: float) -> None:
    """Move running statistics in place towards those of a batch: momentum·running + (1 - momentum)·batch."""
    for old, new in zip(running, found, strict=True):
        old *= momentum
        old += (1 - momentum) * new


def narrow(channels: int, width: int) -> tuple[int, int]:
    """Return the blocks and their columns for a second stage alone: few columns leave many threads for the ranges."""
    width = min(width, 8)
    return -(-channels // width), width


@profiling.operation
def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Return mean and (biased) variance of each column of ``x`` (M, C), both (C,), in the dtype of sums.

    In kernels each block of rows sums its values, and then the squares of their deviations from its own mean, as
    E[x²] - E[x]² would cancel. The blocks are put together by the formula of Chan, Golub and LeVeque, "Algorithms for
    computing the sample variance" (1983), eq. 2.1. M must not be 0.
    """
    require_active(x, "x")
    return statistics(x)


def statistics(x: Array) -> tuple[Array, Array]:
    """Compute ``batch_statistics`` inside another operation."""
    return implementation(x, _batch_statistics_numpy, _batch_statistics_cuda, _batch_statistics_native)(x)


def _batch_statistics_numpy(x: Array) -> tuple[Array, Array]:
    dtype, double = acc_dtype(x.dtype), numpy.float64
    mean, variance = x.mean(axis=0, dtype=double), x.var(axis=0, dtype=double)
    return mean.astype(dtype, copy=False), variance.astype(dtype, copy=False)


def _batch_statistics_native(x: Array) -> tuple[Array, Array]:
    x, cut = numpy.ascontiguousarray(x), columns(*x.shape)
    means, squares = parts_of(cut, x.shape[1], x.dtype)
    sizes = means.size, x.size, cut.width, cut.block_rows
    blocks = -(-x.size // max(cut.block_size, 1))  # with the rows too few for a wide one
    _PARTS.share(x.dtype, blocks, cut.block_size * x.itemsize, x, means, squares, *sizes)
    return _joined_native(Moments(means, squares, len(x), cut))


def parts_of(cut: Columns, channels: int, dtype: numpy.dtype) -> tuple[Array, Array]:
    """Return new arrays for the means and squares of a matrix of ``dtype`` that a C kernel measures."""
    means, squares = (numpy.empty((cut.parts, channels), acc_dtype(dtype)) for _ in range(2))
    return means, squares


def lines_of(y: Array, measured: bool) -> Lines:
    """Return the blocks for an output (N, OH, OW, C), with room for its moments if it is to be measured."""
    n, oh, ow, channels = y.shape
    if not (measured and y.size):
        return Lines(None, 1, n * oh)
    cut = columns(n * oh * ow, channels, ow)
    each = cut.block_rows * cut.fold // ow
    return Lines(Moments(*parts_of(cut, channels, y.dtype), n * oh * ow, cut), each, -(-n * oh // each))


def _joined_native(given: Moments) -> tuple[Array, Array]:
    (parts, channels), dtype, cut = given.means.shape, given.means.dtype, given.cut
    mean, variance = (numpy.empty(channels, dtype) for _ in range(2))
    sizes = parts, channels, given.rows, cut.block_rows, cut.fold
    _JOINED(dtype, given.means, given.squares, mean, variance, *sizes)
    return mean, variance


def _batch_statistics_cuda(x: Array) -> tuple[Array, Array]:
    return _joined_cuda(moments(array_module(x).ascontiguousarray(x)))


def _joined_cuda(given: Moments) -> tuple[Array, Array]:
    (ranges, channels), dtype, library = given.means.shape, given.means.dtype, array_module(given.means)
    mean, variance = (library.empty(channels, dtype) for _ in range(2))
    (blocks, width), range_rows = narrow(channels, given.cut.width), given.cut.range_rows
    last_rows = given.rows - (ranges - 1) * range_rows
    _STATISTICS(
        blocks * block_size(), given.means, given.squares, mean, variance, blocks, channels, width, ranges, range_rows,
        last_rows,
    )  # fmt: skip
    return mean, variance


def joined(given: Moments) -> tuple[Array, Array]:
    """Return mean and variance of each column, as ``statistics`` does, of a matrix whose moments are there."""
    return implementation(given.means, _joined_native, _joined_cuda)(given)  # NumPy's operations leave none


def moments(x: Array) -> Moments:
    """Return the moments of each range of rows, on a device."""
    library, dtype, cut = array_module(x), acc_dtype(x.dtype), tiling_of(*x.shape)
    means, squares = (library.empty((cut.ranges, x.shape[1]), dtype) for _ in range(2))
    _MOMENTS(cut.blocks * block_size(), x, means, squares, cut.blocks, *x.shape, cut.width, cut.range_rows)
    return Moments(means, squares, len(x), cut)


def fewer(given: Moments) -> Moments:
    """Return moments, on a device, of no more ranges than a pass should read: several put together, or those given."""
    ranges = len(given.means)
    return given if ranges <= _MOST_SUMS else join(given, max(-(-ranges // _MOST_SUMS), _JOINED_AT_LEAST))


def join(given: Moments, together: int) -> Moments:
    """Return the moments of ranges that are each so many of those given, which ``cut.range_rows`` rows make."""
    channels = given.means.shape[1]
    cut = in_ranges(given.rows, channels, together * given.cut.range_rows)
    library, dtype = array_module(given.means), given.means.dtype
    means, squares = (library.empty((cut.ranges, channels), dtype) for _ in range(2))
    joined = Moments(means, squares, given.rows, cut)
    implementation(given.means, _join_numpy, _join_cuda)(given, joined, together)
    return joined


def _join_numpy(given: Moments, joined: Moments, together: int) -> None:
    starts, ends = (numpy.arange(len(given.means)) + after for after in (0, 1))
    counts = numpy.minimum(ends * given.cut.range_rows, given.rows) - starts * given.cut.range_rows
    for i in range(len(joined.means)):
        own = slice(i * together, (i + 1) * together)
        weights, means = counts[own, None], given.means[own].astype(numpy.float64)
        mean = (weights * means).sum(axis=0) / weights.sum()
        joined.means[i] = mean
        joined.squares[i] = (given.squares[own] + weights * (means - mean) ** 2).sum(axis=0)


def _join_cuda(given: Moments, joined: Moments, together: int) -> None:
    (ranges, channels), cut = given.means.shape, joined.cut
    last_rows = given.rows - (ranges - 1) * given.cut.range_rows
    _JOIN(
        cut.blocks * block_size(), given.means, given.squares, joined.means, joined.squares, cut.blocks, channels,
        cut.width, ranges, together, given.cut.range_rows, last_rows,
    )  # fmt: skip
