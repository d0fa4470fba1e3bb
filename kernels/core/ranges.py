"""Add up all numbers of an array by a C kernel, in an order that threads do not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from kernels.core.native import Function

_RANGE = 1 << 14
"""Numbers that a C kernel adds up by themselves."""


def add_ranges(
    kernel: Function, dtype: Any, count: int, item_bytes: int, arrays: Sequence[Any], numbers: Sequence[Any] = ()
) -> Any:
    """Return the sum of what a C kernel adds up in ranges of an array, float64, in an order that threads do not change.

    Args:
        count: numbers in the array.
        kernel: takes arrays, float64 sums (ranges,) to write to, numbers, how many numbers the array has, how many
            ranges, and how many numbers a range has.
        item_bytes: as for ``Function.share``.
    """
    ranges = -(-count // _RANGE)
    sums = numpy.empty(ranges)
    kernel.share(dtype, ranges, _RANGE * item_bytes, *arrays, sums, *numbers, count, ranges, _RANGE)
    return sums.sum()
