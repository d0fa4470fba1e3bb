"""JSON as the standard has it (RFC 8259): no NaN, no key twice, nothing after the value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

from training.files.errors import FileError, clipped, said

MAX_BYTES = 2 << 20
"""The longest text that is parsed; its objects take up to thirty times as much memory."""


def parse(text: str | bytes) -> Any:
    """Return the value that a text of at most ``MAX_BYTES`` stands for.

    Raises:
        FileError: it is longer, is not UTF-8 or not JSON, has an object with a key twice, or is nested too deeply.
    """
    if len(text) > MAX_BYTES:
        raise FileError(f"{len(text):,} bytes of JSON; at most {MAX_BYTES:,} are read")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except FileError:
        raise
    except RecursionError as error:
        raise FileError("JSON that is nested too deeply") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
        raise FileError(f"not JSON: {said(error)}") from error


def read(stream: BinaryIO) -> Any:
    """Return the value in an open file.

    Raises:
        FileError: as ``parse``.
        OSError: it cannot be read.
    """
    return parse(stream.read(MAX_BYTES + 1))


def lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of an open file, without their ends; of one that is too long to be parsed, only enough to tell
    that."""
    while line := stream.readline(MAX_BYTES + 1):
        kept = line.removesuffix(b"\n")
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_BYTES)
        yield kept


def dump(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON; numbers that JSON lacks, NaN and the infinities, become null, wherever they stand."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise FileError(f"JSON with the key {clipped(key)} twice in one object")
            seen.add(key)
    return made


def _no_constant(name: str) -> NoReturn:
    raise FileError(f"not JSON: {name} is no number of JSON")
