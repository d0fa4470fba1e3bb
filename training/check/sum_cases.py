"""The sums that ``xpnet check`` runs, and bounds for their results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy

from backend import asarray
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from kernels.sums import axis_means, axis_sums, column_sums, square_sum
from training.check.bounds import Bound, sum_ulps, ulps

SHAPES = ((20_011, 3), (130, 70))
"""Of a sum in two stages, and in one."""


def sum_cases() -> Iterator[tuple[str, Callable[[str], dict[str, Array]], Callable[[str], dict[str, Bound]]]]:
    """Yield the operation, and functions of a dtype that run it and that compute its bounds on the CPU."""
    for shape in SHAPES:
        yield "sums", partial(_run, shape), partial(_bounds, shape)


def _numbers(shape: tuple[int, int], dtype: str) -> numpy.ndarray:
    return numpy.random.default_rng(0).standard_normal(shape).astype(dtype)


def _run(shape: tuple[int, int], dtype: str) -> dict[str, Array]:
    x = asarray(_numbers(shape, dtype))
    return {
        "columns": column_sums(x), "rows": axis_sums(x, 1), "mean": axis_means(x, (0, 1), keepdims=True),
        "squares": square_sum(x).reshape(1),
    }  # fmt: skip


def _bounds(shape: tuple[int, int], dtype: str) -> dict[str, Bound]:
    x = _numbers(shape, dtype).astype("float64")
    size, kind, wide, double = numpy.abs(x), numpy.dtype(dtype), acc_dtype(dtype), numpy.dtype("float64")
    rows, columns = shape
    return {
        "columns": Bound(x.sum(axis=0), kind, ulps(kind, sum_ulps(rows), 1), size.sum(axis=0)),
        "rows": Bound(x.sum(axis=1), wide, ulps(wide, sum_ulps(columns), 1), size.sum(axis=1)),
        "mean": Bound(x.mean().reshape(1, 1), wide, ulps(wide, sum_ulps(x.size), 2), size.mean().reshape(1, 1)),
        "squares": Bound((x * x).sum().reshape(1), double, ulps(double, sum_ulps(x.size), 1)),
    }
