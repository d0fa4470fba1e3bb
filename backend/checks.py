"""Check arguments: numbers in a range, flags, choices and shapes, with one form of error.

A number may be a Python number, a NumPy scalar or a 0-d array on either device (reading that waits for the device). It
is returned as a Python number, which does not change the dtype of arrays. All errors read ``<name> must be <what>, got
<value>``: a TypeError if it is not a number, a ValueError if it is out of range.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy

Given = TypeVar("Given")

LARGEST_SIZE = (1 << 31) - 1
"""The largest axis, window or step: kernels count in 32 bits."""

LARGEST_COUNT = 1 << 44
"""The most elements of an array: more float64 numbers do not fit into any address space."""

LARGEST_EPSILON = 1e30
"""The largest number that can be added to a variance in float32."""

FLOATING = frozenset(numpy.dtype(name) for name in ("float16", "float32", "float64"))
"""The dtypes that layers compute in, in native byte order."""


def whole(name: str, value: Any, least: int | None = None, most: int | None = None, *, floats: bool = False) -> int:
    """Return ``value`` as an int from ``least`` to ``most``.

    Args:
        floats: also accept whole floats (2.0), for numbers that are often computed with ``/``.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is out of range.
    """
    if type(value) is int and (least is None or least <= value) and (most is None or value <= most):
        return value
    number = _number(value)
    if number is None or not (floats or isinstance(number, Integral)):
        raise refusal(TypeError, name, _whole_range(least, most), value)
    is_whole = isinstance(number, Integral) or (math.isfinite(number) and number == int(number))
    if not is_whole or (least is not None and number < least) or (most is not None and number > most):
        raise refusal(ValueError, name, _whole_range(least, most), value)
    return int(number)


def real(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return ``value`` as a finite float with least ≤ value ≤ most and above < value < below.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not finite, or out of range.
    """
    if type(value) is float:
        result = value
    else:
        number = _number(value)
        if number is None:
            raise refusal(TypeError, name, _real_range(least, most, above, below), value)
        try:
            result = float(number)
        except OverflowError:
            result = math.inf
    fits = (
        math.isfinite(result)
        and (least is None or result >= least)
        and (most is None or result <= most)
        and (above is None or result > above)
        and (below is None or result < below)
    )
    if not fits:
        raise refusal(ValueError, name, _real_range(least, most, above, below), value)
    return result


def flag(name: str, value: Any) -> bool:
    """Return ``value`` as a bool; 0 and 1 are accepted, too.

    Raises:
        TypeError: it is neither a bool nor a number.
        ValueError: it is another number.
    """
    if value is True or value is False:
        return value
    plain = _plain(value)
    if not isinstance(plain, (bool, Real)):
        raise refusal(TypeError, name, "True or False", value)
    if plain not in (0, 1):
        raise refusal(ValueError, name, "True or False", value)
    return bool(plain)


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of the choices.

    Raises:
        TypeError: it is not a string.
        ValueError: it is another string.
    """
    if not isinstance(value, str) or value not in choices:
        among = f"one of {', '.join(map(repr, choices))}"
        raise refusal(ValueError if isinstance(value, str) else TypeError, name, among, value)
    return value


def sizes(name: str, value: Any, least: int = 0, length: int | None = None) -> tuple[int, ...]:
    """Return a shape as a tuple of ``length`` ints of at least ``least``; a number is a shape of one axis.

    Raises:
        TypeError: an element is not a number.
        ValueError: a number is out of range, or there are more or fewer than ``length``.
    """
    numbers = value if isinstance(value, (tuple, list)) else several(value)
    numbers = (value,) if numbers is None else numbers
    for axis, number in enumerate(numbers):
        if type(number) is not int or number < least:
            whole(f"{name}[{axis}]", number, least)
    if length is not None and len(numbers) != length:
        raise refusal(ValueError, name, f"{length} whole numbers", value)
    return tuple(map(int, numbers))


def several(value: Any) -> Sequence[Any] | None:
    """Return the elements of a tuple, a list or a 1-D array; None for anything else."""
    if isinstance(value, (tuple, list)):
        return value
    return value.tolist() if getattr(value, "ndim", 0) == 1 else None


def array_shape(name: str, value: Any, least: int = 0) -> tuple[int, ...]:
    """Return the shape of a new array, see ``sizes``; raise ValueError if no memory could hold it."""
    result = sizes(name, value, least)
    if math.prod(result) > LARGEST_COUNT:
        raise refusal(ValueError, name, f"the shape of at most {LARGEST_COUNT:,} numbers", value)
    return result


def floating_dtype(name: str, value: Any) -> numpy.dtype:
    """Return the dtype that ``value`` names, if it is one of ``FLOATING``.

    Raises:
        TypeError: it is not.
    """
    try:
        dtype = numpy.dtype(value) if value is not None else None  # NumPy takes None for float64
    except (TypeError, ValueError, SyntaxError):  # a string or dictionary that NumPy cannot parse
        dtype = None
    if dtype is None or dtype not in FLOATING:
        raise refusal(TypeError, name, "float16, float32 or float64", value)
    return dtype


def instance(name: str, value: Given, kinds: type | tuple[type, ...], what: str) -> Given:
    """Return ``value`` if it is an instance of ``kinds``; else raise a TypeError that asks for ``what``."""
    if not isinstance(value, kinds):
        raise refusal(TypeError, name, what, value)
    return value


def refusal(kind: type[Exception], name: str, expected: str, value: Any) -> Exception:
    """Return an error of ``kind`` that says what was expected for the argument ``name``, and what was given."""
    return kind(f"{name} must be {expected}, got {shown(value)}")


def shown(value: Any) -> str:
    """Describe a value for an error message, in at most one line."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and value.shape != ():
        return f"an array of {value.dtype}{list(value.shape)}"
    plain = _plain(value)
    if type(plain) is int and plain.bit_length() > 10_000:  # Python refuses to spell out such a number
        return f"a whole number of {plain.bit_length():,} bits"
    if type(plain) in (int, float, bool) or plain is None:
        return _brief.repr(plain)
    told = " ".join(_brief.repr(value).split())
    if len(told) > _LONGEST:  # lists in lists
        told = f"{told[: _LONGEST - 1]}…"
    return told if type(value) in (str, bytes, list, tuple, dict) else f"{told} ({type(value).__name__})"


class Hyperparameter:
    """A number as an attribute of a layer or optimizer: a Python float whose range is checked when it is set.

    Args:
        least, most, above, below: as for ``real``.
    """

    def __init__(
        self,
        *,
        least: float | None = None,
        most: float | None = None,
        above: float | None = None,
        below: float | None = None,
    ) -> None:
        self.range: dict[str, Any] = {"least": least, "most": most, "above": above, "below": below}

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            raise AttributeError(f"{self.name} belongs to an instance of {kind.__name__}, not to the class")
        try:
            return owner.__dict__[self.name]
        except KeyError:
            raise AttributeError(f"{kind.__name__}.{self.name} was not set yet") from None

    def __set__(self, owner: Any, value: Any) -> None:
        owner.__dict__[self.name] = real(f"{type(owner).__name__}: {self.name}", value, **self.range)


_LONGEST = 160
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 60  # maxlong, of a whole number, is 40


def _plain(value: Any) -> Any:
    """Return the Python value of a NumPy scalar or 0-d array; anything else unchanged."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _number(value: Any) -> Any:
    """Return ``value`` as a Python number, or None if it is not a number; bools are not."""
    plain = _plain(value)
    return plain if isinstance(plain, Real) and not isinstance(plain, bool) else None


def _whole_range(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f"a whole number from {least} to {_to_read(most)}"
    return "a whole number" + (f" of at least {least}" if least is not None else "")


def _to_read(number: int) -> str:
    """Return ``number`` as text; one less than a large power of two is written as 2ⁿ - 1."""
    exponent = number.bit_length()
    return f"2**{exponent} - 1" if exponent > 16 and number == (1 << exponent) - 1 else f"{number}"


def _real_range(least: float | None, most: float | None, above: float | None, below: float | None) -> str:
    bounds = (("at least", least), ("above", above), ("at most", most), ("below", below))
    said = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
    return f"a finite number, {said}" if said else "a finite number"
