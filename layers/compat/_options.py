"""Read options that come in dictionaries: one clear error, which names the key."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from backend.checks import refusal, several, whole


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


def whole_or_pair(name: str, value: Any, least: int) -> int | tuple[int, int]:
    """Return ``value`` as a whole number, or as two of them: (rows, columns). Floats may stand for them (2.0).

    Raises:
        TypeError: it is neither a number nor a tuple, a list or an array of two.
        ValueError: a number is not whole or below ``least``, or there are not two.
    """
    numbers = several(value)
    if numbers is None:
        return whole(name, value, least, floats=True)
    if len(numbers) != 2:
        raise refusal(ValueError, name, f"a whole number of at least {least} or a pair of them", value)
    rows, columns = (whole(f"{name}[{axis}]", number, least, floats=True) for axis, number in enumerate(numbers))
    return rows, columns
