"""Mean and variance of the columns of a matrix, and how batch normalization's kernels cut it.

Kernels that take sums leave a partial result for each range of rows. In training the pass that needs the sums puts the
ranges together (``kernels.batch_norm``); ``batch_statistics`` alone has a second launch for that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy

from backend import array_module, profiling, require_active
from backend.types import Array
from kernels.core.columns import columns
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.native import Function
from kernels.core.tiling import power_of_two

_MOMENTS, _STATISTICS = (Kernel("batch_norm.cu", f"batch_norm_{name}") for name in ("moments", "statistics"))
_PARTS, _JOINED = (Function("batch_norm.c", f"batch_norm_{name}") for name in ("moments", "statistics"))


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


def tiling_of(rows: int, channels: int) -> Tiling:
    """Return the cut for sums, by shapes alone: results have the same bits on every GPU."""
    return _tiling(rows, channels, _CHUNK, _MOST_SUMS)


def pass_tiling(rows: int, channels: int) -> Tiling:
    """Return the cut for the passes, on which no bit depends."""
    return _tiling(rows, channels, _PASS_ROWS, _MOST_BLOCKS)


def _tiling(rows: int, channels: int, least_rows: int, most_blocks: int) -> Tiling:
    width = min(power_of_two(channels), 32)
    across = -(-channels // width)
    ranges = max(min(-(-rows // (block_size() // width * least_rows)), most_blocks // max(across, 1)), 1)
    range_rows = max(-(-rows // ranges), 1)
    ranges = max(-(-rows // range_rows), 1)
    return Tiling(width, range_rows, ranges, across * ranges)


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
    x, dtype, (rows, channels) = numpy.ascontiguousarray(x), acc_dtype(x.dtype), x.shape
    cut = columns(rows, channels)
    means, squares = (numpy.empty((cut.parts, channels), dtype) for _ in range(2))
    sizes = means.size, x.size, cut.width, cut.block_rows
    _PARTS.share(x.dtype, cut.blocks, cut.block_size * x.itemsize, x, means, squares, *sizes)
    mean, variance = (numpy.empty(channels, dtype) for _ in range(2))
    _JOINED(x.dtype, means, squares, mean, variance, cut.parts, channels, rows, cut.block_rows, cut.fold)
    return mean, variance


def _batch_statistics_cuda(x: Array) -> tuple[Array, Array]:
    library, dtype = array_module(x), acc_dtype(x.dtype)
    (rows, channels), (width, range_rows, ranges, _) = x.shape, tiling_of(*x.shape)
    mean, variance = (library.empty(channels, dtype) for _ in range(2))
    blocks, narrow_width = narrow(channels, width)
    last_rows = rows - (ranges - 1) * range_rows
    _STATISTICS(
        blocks * block_size(), *moments(library.ascontiguousarray(x)), mean, variance, blocks, channels, narrow_width,
        ranges, range_rows, last_rows,
    )  # fmt: skip
    return mean, variance


def moments(x: Array) -> tuple[Array, Array]:
    """Return mean and sum of squared deviations of each range of rows: (ranges, C), on the device."""
    library, dtype = array_module(x), acc_dtype(x.dtype)
    width, range_rows, ranges, blocks = tiling_of(*x.shape)
    means, squares = (library.empty((ranges, x.shape[1]), dtype) for _ in range(2))
    _MOMENTS(blocks * block_size(), x, means, squares, blocks, *x.shape, width, range_rows)
    return means, squares
