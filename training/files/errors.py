"""Errors about files, and their texts."""

from __future__ import annotations

from typing import Any

LONGEST = 80


class FileError(ValueError):
    """Unusable content of a file; the message says what is wrong."""


def clipped(value: Any) -> str:
    """Return a value from a file as text for an error: one line of about 80 characters at most, safe on any
    terminal."""
    if isinstance(value, str):
        text = ascii(value[:LONGEST])
        return text if len(value) <= LONGEST else f"{text[:LONGEST]}…"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (list, tuple, dict)) and len(value) > 8:
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(clipped(item) for item in value)
        text = f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{clipped(key)}: {clipped(item)}" for key, item in value.items()) + "}"
    else:
        text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def shortened(error: BaseException) -> str:
    """Return the message of a library's error in one line of about 200 characters at most: some quote the file at
    length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 2 * LONGEST else f"{text[: 2 * LONGEST]}…"
