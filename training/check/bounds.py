"""How far a right array may be from the exact one: a float64 reference, and what rounding explains.

A bound holds for each element by itself, in units in the last place (ulps) of its *magnitude*: the sum of the absolute
values of the terms that the element is the sum of. A sum of n products, in any order, fused or not, each step rounded
to nearest or cut off, is off by at most n units (Higham, "Accuracy and stability of numerical algorithms", 2002,
section 3.1). Where roundings are independent of each other it is off by 4·√n units (8·√n half ones) less than once in
10¹³ sums (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019). The smaller one counts.

An operation that does not round (relu, max pooling, dropout) has a bound of 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy

Arrays = dict[str, numpy.ndarray]

FUNCTION_ULPS = 4.0
"""The error of exp, log and tanh: NumPy promises 4 ulps, CUDA's programming guide 1 or 2."""


@dataclass(frozen=True)
class Bound:
    """What an array has to be.

    Attributes:
        expected: the exact numbers, in float64; or whole numbers or bools, which have to be met.
        dtype: that the array has to have.
        ulps: how many units in the last place of ``magnitude`` it may be off.
        magnitude: of each element, as ``training.check.bounds`` explains; ``|expected|`` where None.
        factor_ulps: how many units all elements may be off *in common*, as by a factor; infinite where the roundings
            of elements are not independent of each other.
    """

    expected: numpy.ndarray
    dtype: numpy.dtype
    ulps: float = 0.0
    magnitude: numpy.ndarray | None = None
    factor_ulps: float = math.inf

    def error(self, actual: numpy.ndarray) -> float:
        """Return the largest error in ulps; infinite where shape or dtype are wrong, or a number is not finite that
        should be.

        Numbers below the smallest normal one may be anything below it: CuPy has them flushed to 0 in float32.
        """
        if actual.shape != self.expected.shape or actual.dtype != self.dtype:
            return math.inf
        if self.dtype.kind != "f":
            return 0.0 if numpy.array_equal(actual, self.expected) else math.inf
        finite = numpy.isfinite(self.expected)
        if not numpy.array_equal(actual[~finite], self.expected[~finite], equal_nan=True):
            return math.inf
        wide, expected = actual[finite].astype("float64"), self.expected[finite].astype("float64")
        if not numpy.isfinite(wide).all():
            return math.inf
        off = numpy.maximum(numpy.abs(wide - expected) - _underflow(self.dtype), 0)
        magnitude = expected if self.magnitude is None else numpy.broadcast_to(self.magnitude, finite.shape)[finite]
        with numpy.errstate(divide="ignore", over="ignore"):
            units = off[off > 0] / (_unit(self.dtype) * numpy.abs(magnitude[off > 0]))
        return float(units.max(initial=0.0))

    def factor_error(self, actual: numpy.ndarray) -> float:
        """By how many ulps the array is off as a whole, beyond what independent roundings explain.

        The errors are projected on the expected numbers, which a wrong factor would lengthen, and roundings rarely do:
        five standard deviations of the projection are taken off.
        """
        wide, expected = actual.astype("float64").ravel(), self.expected.astype("float64").ravel()
        length = float((expected * expected).sum())
        if math.isinf(self.factor_ulps) or not 0 < length < math.inf:
            return 0.0
        along = (wide - expected) * expected
        beyond = abs(float(along.sum())) - 5 * math.sqrt(float((along * along).sum()))
        return max(beyond, 0.0) / (length * _unit(self.dtype))


def sum_ulps(terms: float) -> float:
    """How far a sum of so many terms may be off, in ulps of the sum of their absolute values."""
    return min(terms, 4 * math.sqrt(terms))


def ulps(dtype: numpy.dtype, sums: float, roundings: float) -> float:
    """Return a bound in ulps of ``dtype``, from errors in ulps of the dtype in which sums are made, and further
    roundings.

    float64 is compared with itself: both may be off, the reference too.
    """
    if dtype == "float16":
        return sums * _unit("float32") / _unit("float16") + roundings
    return (sums + roundings) * (2 if dtype == "float64" else 1)


def _unit(dtype: Any) -> float:
    return float(numpy.finfo(dtype).eps)


def _underflow(dtype: numpy.dtype) -> float:
    info = numpy.finfo(dtype)
    return float(info.tiny if dtype == "float32" else info.smallest_subnormal)
