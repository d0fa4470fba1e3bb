"""Every operation on a device, held to what it has to compute: forward and backward, in every dtype."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backend import asnumpy, random, use
from kernels.core.catalog import DTYPES
from training.check.bounds import Bound
from training.check.cases import Case, cases


@dataclass(frozen=True)
class CheckRow:
    """What all cases of an operation came to. ``error`` and ``tolerance``, in ulps, are those of the ``worst``."""

    operation: str
    cases: int
    error: float
    tolerance: float
    worst: str

    @property
    def passed(self) -> bool:
        """Whether every case is within its tolerance."""
        return self.error <= self.tolerance


def compare(device: str, dtypes: tuple[str, ...] = DTYPES) -> Iterator[CheckRow]:
    """Run every operation on ``device`` and hold it to its bounds; yield a row as each is done.

    An operation that raises on the device is infinitely wrong; the row has the error's words.
    """
    by_operation: dict[str, list[Case]] = {}
    for case in cases():
        by_operation.setdefault(case.operation, []).append(case)
    for operation, own in by_operation.items():
        found = [(*each, dtype) for case in own for dtype in dtypes for each in _measure(case, dtype, device)]
        what, error, tolerance, dtype = max(found, key=lambda each: severity(*each[1:3]))
        yield CheckRow(operation, len(own) * len(dtypes), error, tolerance, f"{what}, {dtype}")


def severity(error: float, tolerance: float) -> tuple[bool, float]:
    """Return what errors are ordered by: those beyond their tolerance first, then the share of it."""
    return error > tolerance, error / tolerance if tolerance else error


def errors_of(actual: Any, bound: Bound, name: str) -> Iterator[tuple[str, float, float]]:
    """Yield (what, error, tolerance) of a host array: element by element, and as a whole."""
    yield name, bound.error(actual), bound.ulps
    if not math.isinf(bound.factor_ulps) and actual.shape == bound.expected.shape:
        yield f"a factor of {name}", bound.factor_error(actual), bound.factor_ulps


def in_one_line(error: Exception) -> str:
    """Return an error as its kind and the first line of its words."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _measure(case: Case, dtype: str, device: str) -> Iterator[tuple[str, float, float]]:
    with use("cpu"):
        random.seed(1)
        if case.bounds is not None:
            bounds = case.bounds(dtype)
        else:
            bounds = {name: Bound(asnumpy(array), array.dtype) for name, array in case.run(dtype).items()}
    try:
        with use(device):
            random.seed(1)
            results = {name: asnumpy(array) for name, array in case.run(dtype).items()}
    except Exception as error:  # whatever it is: the next operation may do better
        yield in_one_line(error), math.inf, 0.0
        return
    for name in bounds.keys() ^ results.keys():
        yield f"{name} is missing" if name in bounds else f"{name} is too much", math.inf, 0.0
    for name in bounds.keys() & results.keys():
        yield from errors_of(results[name], bounds[name], name)
