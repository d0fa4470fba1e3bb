"""Check options that come in dictionaries; errors name the key."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from backend.checks import refusal, several, whole


def dictionary(
    name: str, given: Any, needed: Collection[str], optional: Collection[str] = (), ignored: Collection[str] = ()
) -> None:
    """Raise unless ``given`` is a dictionary with all needed keys, and only needed, optional and ignored ones.

    Raises:
        TypeError: it is not a dictionary.
        ValueError: a key is missing or unknown.
    """
    keys = ", ".join(repr(key) for key in (*needed, *optional))
    if not isinstance(given, dict):
        raise TypeError(f"{name} must be a dictionary with {keys}, got {given!r}")
    for key in needed:
        if key not in given:
            raise ValueError(f"{name} needs {key!r}, got {list(given)}")
    for key in given:
        if key not in needed and key not in optional and key not in ignored:
            raise ValueError(f"{name} takes {keys}, got {key!r}")


def whole_or_pair(name: str, value: Any, least: int) -> int | tuple[int, int]:
    """Return ``value`` as an integer or as two of them, (rows, columns). Whole floats (2.0) are allowed.

    Raises:
        TypeError: it is neither a number nor a tuple, list or array of two numbers.
        ValueError: a number is not whole or below ``least``, or there are not two.
    """
    numbers = several(value)
    if numbers is None:
        return whole(name, value, least, floats=True)
    if len(numbers) != 2:
        raise refusal(ValueError, name, f"a whole number of at least {least} or a pair of them", value)
    rows, columns = (whole(f"{name}[{axis}]", number, least, floats=True) for axis, number in enumerate(numbers))
    return rows, columns
