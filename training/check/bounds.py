"""Bounds for rounding errors: a float64 reference, and how far rounding can move a result from it.

A bound holds for each element, in units in the last place (ulps) of its *magnitude*: an element is a sum of terms, and
its magnitude is the sum of their absolute values. A sum of n products, in any order, fused or not, each step rounded
to nearest or truncated, is off by at most n units (Higham, "Accuracy and stability of numerical algorithms", 2002,
section 3.1). Where roundings are independent of each other it is off by 4·√n units (8·√n half ones) less than once in
10¹³ sums (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019). The
smaller bound counts.

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
    """The array that an operation must return, and the error allowed.

    Attributes:
        expected: the exact numbers, in float64; or integers or bools, which must match exactly.
        dtype: the dtype that the array must have.
        ulps: the error allowed, in units in the last place of ``magnitude``.
        magnitude: of each element, as the module's docstring defines it; None stands for ``|expected|``.
        factor_ulps: the error allowed that all elements have *in common*, as by a wrong factor; infinite where the
            roundings of different elements depend on each other.
    """

    expected: numpy.ndarray
    dtype: numpy.dtype
    ulps: float = 0.0
    magnitude: numpy.ndarray | None = None
    factor_ulps: float = math.inf

    def error(self, actual: numpy.ndarray) -> float:
        """Return the largest error in ulps; infinite if shape or dtype are wrong, or a number is not finite and should
        be.

        Subnormal numbers may be replaced by any other subnormal number: CuPy flushes them to 0 in float32.
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
        """Return the error that all elements have in common, in ulps, beyond what independent roundings explain.

        The errors are projected on the expected numbers: a wrong factor makes the projection large, independent
        roundings rarely do. Five standard deviations of the projection are subtracted.
        """
        wide, expected = actual.astype("float64").ravel(), self.expected.astype("float64").ravel()
        length = float((expected * expected).sum())
        if math.isinf(self.factor_ulps) or not 0 < length < math.inf:
            return 0.0
        along = (wide - expected) * expected
        beyond = abs(float(along.sum())) - 5 * math.sqrt(float((along * along).sum()))
        return max(beyond, 0.0) / (length * _unit(self.dtype))


def measured_bound(expected: numpy.ndarray, given: numpy.ndarray) -> Bound:
    """Return a bound for a function of which nothing is known but what the CPU made of it.

    An error may be 16 times the CPU's largest one, and 8 units of the largest element more; in float64, in which the
    CPU's own errors are not known, 64 units.

    Args:
        expected: the CPU's result in float64.
        given: the CPU's result in the dtype that is checked.
    """
    if given.dtype.kind != "f":
        return Bound(expected.astype(given.dtype), given.dtype)
    finite = numpy.isfinite(expected)
    size = float(numpy.abs(expected[finite]).max(initial=0.0)) or 1.0
    off = float(numpy.nan_to_num(numpy.abs(given - expected)[finite]).max(initial=0.0))
    magnitude = numpy.full(expected.shape, size)
    units = 64 if given.dtype == "float64" else 8
    return Bound(expected, given.dtype, 16 * off / (size * _unit(given.dtype)) + units, magnitude)


def sum_ulps(terms: float) -> float:
    """Return the error allowed in a sum of ``terms`` terms, in ulps of the sum of their absolute values."""
    return min(terms, 4 * math.sqrt(terms))


def ulps(dtype: numpy.dtype, sums: float, roundings: float) -> float:
    """Return a bound in ulps of ``dtype``, from errors in ulps of the dtype in which sums are made, and further
    roundings.

    float64 is compared with float64: the reference is rounded, too.
    """
    if dtype == "float16":
        return sums * _unit("float32") / _unit("float16") + roundings
    return (sums + roundings) * (2 if dtype == "float64" else 1)


def _unit(dtype: Any) -> float:
    return float(numpy.finfo(dtype).eps)


def _underflow(dtype: numpy.dtype) -> float:
    info = numpy.finfo(dtype)
    return float(info.tiny if dtype == "float32" else info.smallest_subnormal)
