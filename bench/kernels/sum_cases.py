"""The cases of sums: a matrix's columns, as a bias's gradient is, and the squares of all parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from backend.types import Array
from bench.kernels.case import Call, KernelCase, by, centered, nbytes
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import BLOCK
from kernels.sums import column_sums, square_sum, stages

MATRICES = ((128, 1000), (128 * 28 * 28, 16), (64 * 112 * 112, 64))
TINY_MATRICES = ((5000, 5),)

COUNTS = (1 << 20, 25_600_000)  # the latter are about as many as the parameters of a ResNet-50
TINY_COUNTS = (70_001,)


def cases(dtype: str, tiny: bool) -> Iterator[KernelCase]:
    """Yield all cases for one dtype, on realistic or tiny shapes."""
    for shape in TINY_MATRICES if tiny else MATRICES:
        yield _columns(shape, dtype)
    for count in TINY_COUNTS if tiny else COUNTS:
        yield _squares(count, dtype)


def is_one_stage(outer: int, length: int, inner: int, dtype: Any) -> bool:
    """Return whether sums along the middle axis, rounded to a dtype, are made by one launch."""
    return dtype == acc_dtype(dtype) and stages(outer, length, inner, BLOCK)[0].ranges == 1


def _columns(shape: tuple[int, int], dtype: str) -> KernelCase:
    def bind(x: Array) -> Call:
        return lambda: column_sums(x)

    one_stage = is_one_stage(1, *shape, dtype)
    return KernelCase(
        "column sums", by(*shape), dtype, ("sum_ranges",) if one_stage else ("sum_ranges", "sum_partials"),
        {"x": nbytes(shape, dtype), "sums": nbytes(shape[1:], dtype)}, lambda: (centered(shape, dtype),), bind,
        tolerance=256,
    )  # fmt: skip


def _squares(count: int, dtype: str) -> KernelCase:
    def bind(x: Array) -> Call:
        return lambda: square_sum(x)

    return KernelCase(
        "sum of squares", str(count), dtype, ("square_ranges", "sum_partials"),
        {"x": nbytes((count,), dtype), "sum": nbytes((), numpy.float64)}, lambda: (centered((count,), dtype),), bind,
        tolerance=256,
    )  # fmt: skip
