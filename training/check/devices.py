"""Run every operation on a device, forward and backward, in every dtype, and compare the results with their bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from backend import asnumpy, random, use
from backend.types import Array
from kernels.core.catalog import DTYPES
from training.check.bounds import Bound
from training.check.cases import CheckCase, cases


@dataclass(frozen=True)
class CheckRow:
    """The result of all cases of an operation. ``error`` and ``tolerance``, in ulps, are those of the ``worst``
    case."""

    operation: str
    cases: int
    error: float
    tolerance: float
    worst: str

    @property
    def passed(self) -> bool:
        """True if every case is within its tolerance."""
        return self.error <= self.tolerance


def compare(device: str, dtypes: tuple[str, ...] = DTYPES) -> Iterator[CheckRow]:
    """Run every operation on ``device`` and compare it with its bounds; yield a row after each.

    An operation that raises on the device has an infinite error; the row has the message.
    """
    by_operation: dict[str, list[CheckCase]] = {}
    for case in cases():
        by_operation.setdefault(case.operation, []).append(case)
    for operation, own in by_operation.items():
        found = [(*each, dtype) for case in own for dtype in dtypes for each in _measure(case, dtype, device)]
        what, error, tolerance, dtype = max(found, key=lambda each: severity(*each[1:3]))
        yield CheckRow(operation, len(own) * len(dtypes), error, tolerance, f"{what}, {dtype}")


def severity(error: float, tolerance: float) -> tuple[bool, float]:
    """Return a key that orders errors: those beyond their tolerance last, then by error / tolerance."""
    return error > tolerance, error / tolerance if tolerance else error


def errors_of(actual: Array, bound: Bound, name: str) -> Iterator[tuple[str, float, float]]:
    """Yield (what, error, tolerance) of a host array: element by element, and as a whole."""
    yield name, bound.error(actual), bound.ulps
    if not math.isinf(bound.factor_ulps) and actual.shape == bound.expected.shape:
        yield f"a factor of {name}", bound.factor_error(actual), bound.factor_ulps


def in_one_line(error: Exception) -> str:
    """Return the class of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _measure(case: CheckCase, dtype: str, device: str) -> Iterator[tuple[str, float, float]]:
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
    except Exception as error:  # of any kind: go on with the next operation
        yield in_one_line(error), math.inf, 0.0
        return
    for name in bounds.keys() ^ results.keys():
        yield f"{name} is missing" if name in bounds else f"{name} is unexpected", math.inf, 0.0
    for name in bounds.keys() & results.keys():
        yield from errors_of(results[name], bounds[name], name)
