"""Add up all numbers of an array by a C kernel, in an order that threads do not change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from kernels.core.native import share

_RANGE = 1 << 14
"""Numbers that a C kernel adds up by themselves."""


def add_ranges(count: int, item_bytes: int, call: Callable[..., Any]) -> Any:
    """Return the sum of what a C kernel adds up in ranges of an array, float64, in an order that threads do not change.

    Args:
        count: numbers in the array.
        item_bytes: as for ``native.share``.
        call: takes float64 sums (ranges,) to write to, the number of ranges, how many numbers a range has, and the
            first and the last range to compute.
    """
    ranges = -(-count // _RANGE)
    sums = numpy.empty(ranges)
    share(ranges, _RANGE * item_bytes, lambda first, last: call(sums, ranges, _RANGE, first, last))
    return sums.sum()
