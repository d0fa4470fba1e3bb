"""Cut a batch into parts, so that what is made of a part stays small, and the CPU's cores can share the parts.

Where a bit of a result depends on the cut, the cut depends on shapes alone, never on the number of threads: results
have the same bits for any number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy

from backend import threads, tuning
from backend.types import Array
from kernels.core.launch import block_size

Item = TypeVar("Item")


class Part(NamedTuple):
    """A part of a batch: some of its images, and some rows of their output."""

    images: slice
    rows: slice

    def of_images(self, array: Array) -> Array:
        """Return the part's images of an array of the batch: the array itself, where these are all."""
        return array if self.images == slice(0, len(array)) else array[self.images]

    def of_output(self, array: Array) -> Array:
        """Return the part's rows of an array (N, OH, …) like the output: the array itself, where these are all."""
        return self.of_images(array) if self.rows == slice(0, array.shape[1]) else array[self.images, self.rows]


def power_of_two(number: int) -> int:
    """Return the least power of two that is not less than a number; 1 for 0."""
    return 1 << max(number - 1, 0).bit_length()


def row_group(length: int) -> int:
    """Return how many threads of a GPU have a row of numbers together, as ``core/row_groups.cu`` needs it."""
    return block_size() if length > 1024 else min(power_of_two(length), 32)


def together(row: int, dtype: numpy.dtype) -> int:
    """Return how many neighbouring numbers a GPU's thread takes of rows of ``row``: 16 bytes, or one number.

    ``is_together`` of prelude.cu decides; arrays that do not begin at such an address are taken by as many threads.
    """
    many = 16 // dtype.itemsize
    return many if row % many == 0 else 1


def cut(images: int, rows: int, row_bytes: int, library: Any, least_rows: int = 1) -> list[Part]:
    """Cut (images, output rows) into parts whose columns fit ``backend.tuning.COLUMN_BYTES``.

    A part is some whole images or, where one image is too large, a band of its rows; a band has at least one row.

    Args:
        row_bytes: bytes of columns that one output row of one image takes.
        library: NumPy or CuPy.
        least_rows: of a part, even if their columns do not fit.
    """
    cap = max(tuning.COLUMN_BYTES[library.__name__], least_rows * row_bytes)
    return list(_cut(images, rows, row_bytes, cap, library is numpy))


@lru_cache(maxsize=1024)
def _cut(images: int, rows: int, row_bytes: int, cap: int, halved: bool) -> tuple[Part, ...]:
    image_bytes = rows * row_bytes
    if image_bytes > cap:
        bands = ranges(rows, -(-rows // max(cap // row_bytes, 1)))
        return tuple(Part(slice(n, n + 1), slice(*band)) for n in range(images) for band in bands)
    if halved:
        cap = min(cap, max(images * image_bytes // 2, tuning.WORTH_HALVING))  # two parts at least, if worth it
    per_part = max(cap // max(image_bytes, 1), 1)
    return tuple(Part(slice(*piece), slice(0, rows)) for piece in ranges(images, -(-images // per_part)))


def partial_sums(parts: list[Part], result_bytes: int) -> list[list[Part]]:
    """Return the parts in groups that each add up a partial sum, so that the sum's order is fixed for any threads.

    Args:
        result_bytes: of one partial sum. There are up to 16 groups, fewer where their results would take more than
            ``backend.tuning.PARTIAL_SUM_BYTES``.
    """
    count = min(len(parts), max(min(tuning.PARTIAL_SUM_BYTES // max(result_bytes, 1), 16), 2))
    return [parts[begin:end] for begin, end in ranges(len(parts), count)]


def parallel_for(function: Callable[[Item], Any], items: Sequence[Item], x: Array) -> None:
    """Call ``function(item)`` for each item: on the CPU's cores for a host array ``x``, in turn for a device one."""
    if isinstance(x, numpy.ndarray):
        threads.run(function, items)
    else:
        for item in items:
            function(item)


def ranges(total: int, count: int) -> list[tuple[int, int]]:
    """Return the (begin, end) of ``count`` ranges of nearly equal length that make up ``total``."""
    return [(total * i // count, total * (i + 1) // count) for i in range(count)]
