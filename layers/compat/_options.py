"""Read options that come in dictionaries: one clear error, which names the key."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from typing import Any


def dictionary(
    name: str, given: Any, needed: Collection[str], optional: Collection[str] = (), ignored: Collection[str] = ()
) -> None:
    """Raise unless ``given`` is a dictionary with all needed keys, and none but these, the optional and the ignored.

    Raises:
        TypeError: it is no dictionary.
        ValueError: a key is missing or unknown.
    """
    keys = ", ".join(repr(key) for key in (*needed, *optional))
    if not isinstance(given, dict):
        raise TypeError(f"{name} is a dictionary with {keys}, not {given!r}")
    for key in needed:
        if key not in given:
            raise ValueError(f"{name} needs {key!r}, got {list(given)}")
    for key in given:
        if key not in needed and key not in optional and key not in ignored:
            raise ValueError(f"{name} takes {keys}, not {key!r}")


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of the choices; a ValueError otherwise."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {' or '.join(map(repr, choices))}, not {value!r}")
    return value


def number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """Return ``value``, a number or a 0-d array of one, as a finite float in a range; a ValueError otherwise."""
    plain = _plain(value)
    try:
        result = math.nan if isinstance(plain, (str, bytes, bool)) or hasattr(plain, "dtype") else float(plain)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not (math.isfinite(result) and least <= result <= most):
        bounds = "" if least == -math.inf else f" from {least:g}" + ("" if most == math.inf else f" to {most:g}")
        raise ValueError(f"{name} is a number{bounds}, not {value!r}")
    return result


def whole(name: str, value: Any, least: int, pair: bool = False) -> Any:
    """Return ``value`` as a whole number, which may be given as a float (2.0) or a 0-d array.

    With ``pair`` there may be two of them, in a tuple, a list or an array; a tuple is returned then.

    Raises:
        ValueError: it is none, or below ``least``.
    """
    if pair and getattr(value, "ndim", None) == 1:
        value = value.tolist()
    if pair and isinstance(value, (tuple, list)) and len(value) == 2:
        return whole(name, value[0], least), whole(name, value[1], least)
    plain = _plain(value)
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    try:
        result = least - 1 if isinstance(plain, bool) or hasattr(plain, "dtype") else operator.index(plain)
    except TypeError:
        result = least - 1
    if result < least:
        kind = "a whole number or a pair of them" if pair else "a whole number"
        raise ValueError(f"{name} is {kind}, at least {least}, not {value!r}")
    return result


def _plain(value: Any) -> Any:
    """Return a NumPy or CuPy number, or a 0-d array of one, as Python's; anything else as it is."""
    if getattr(value, "ndim", None) == 0 and getattr(value.dtype, "kind", "") in "iuf":
        return value.item()
    return value
