"""Cut a matrix for the C kernels that sum its columns (``core/columns.h``), by its shape alone."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

_FEW = 64  # columns up to which rows are joined
_BLOCK = 8192  # numbers of a block, which is read twice: 32 KiB of float32, a core's first cache
_LEAST_ROWS = 16  # of a block: the sums that it leaves are much less than itself


class Columns(NamedTuple):
    """The cut of a (rows, channels) matrix.

    Attributes:
        fold: rows that make a wide one.
        width: of a wide row.
        block_rows: wide rows of a block.
        block_size: numbers of a block.
        parts: partial sums of a channel.
    """

    fold: int
    width: int
    block_rows: int
    block_size: int
    blocks: int
    parts: int


@functools.lru_cache(maxsize=1024)
def columns(rows: int, channels: int, run: int = 1) -> Columns:
    """Return the cut of a (rows, channels) matrix into blocks of whole runs of so many rows."""
    fold = max(_FEW // max(channels, 1), 1)
    width = fold * channels
    block_rows = max(_BLOCK // max(width, 1), _LEAST_ROWS)
    if run > 1:  # a block has whole wide rows as well
        least = math.lcm(fold, run)
        block_rows = max(block_rows * fold // least, 1) * least // fold
    blocks = -(-(rows // fold) // block_rows) if channels else 0
    return Columns(fold, width, block_rows, width * block_rows, blocks, blocks * fold + rows % fold)
