"""Read and write JSON as the standard defines it (RFC 8259): no NaN, no duplicate keys, nothing after the value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

from training.files.errors import FileError, clipped, shortened

MAX_BYTES = 2 << 20
"""The most bytes that are parsed; the objects take up to thirty times as much memory."""


def parse(text: str | bytes) -> Any:
    """Return the value of a JSON text of at most ``MAX_BYTES``.

    Raises:
        FileError: the text is longer, is not UTF-8 or not JSON, has an object with a duplicate key, or is nested too
            deeply.
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
        raise FileError("JSON nested too deeply") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
        raise FileError(f"not JSON: {shortened(error)}") from error


def read(stream: BinaryIO) -> Any:
    """Return the JSON value in an open file.

    Raises:
        FileError: as ``parse``.
        OSError: it cannot be read.
    """
    return parse(stream.read(MAX_BYTES + 1))


def lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of an open file, without their line breaks. A line that is too long to be parsed is cut, but
    stays too long."""
    while line := stream.readline(MAX_BYTES + 1):
        kept = line.removesuffix(b"\n")
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_BYTES)
        yield kept


def dump(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON; NaN and infinities, which JSON lacks, become null."""
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
                raise FileError(f"JSON with the duplicate key {clipped(key)} in an object")
            seen.add(key)
    return made


def _no_constant(name: str) -> NoReturn:
    raise FileError(f"not JSON: {name} is not a JSON number")
