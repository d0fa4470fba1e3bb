"""Reading options that come in dictionaries: one clear error, which names the key."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from typing import Any


def dictionary(name: str, given: Any, needed: Collection[str], optional: Collection[str] = ()) -> None:
    """Raises unless ``given`` is a dictionary with all needed keys, and none but these and the optional ones.

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
        if key not in needed and key not in optional:
            raise ValueError(f"{name} takes {keys}, not {key!r}")


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """``value`` if it is one of the choices; a ValueError otherwise."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {' or '.join(map(repr, choices))}, not {value!r}")
    return value


def number(name: str, value: Any, least: float, most: float = math.inf) -> float:
    """``value`` as a finite float in a range; a ValueError otherwise."""
    try:
        result = math.nan if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not (math.isfinite(result) and least <= result <= most):
        bounds = f"from {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise ValueError(f"{name} is a number {bounds}, not {value!r}")
    return result


def whole(name: str, value: Any, least: int, pair: bool = False) -> Any:
    """``value`` as a whole number, which may be given as a float (2.0); with ``pair`` also two of them, as a tuple.

    Raises:
        ValueError: it is none, or below ``least``.
    """
    if pair and isinstance(value, (tuple, list)) and len(value) == 2:
        return whole(name, value[0], least), whole(name, value[1], least)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        result = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        result = least - 1
    if result < least:
        kind = "a whole number or a pair of them" if pair else "a whole number"
        raise ValueError(f"{name} is {kind}, at least {least}, not {value!r}")
    return result
