"""What a file says of an array before its data."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy

from training.files.errors import FileError, clipped

MAX_AXES = 32
CHUNK = 1 << 18
"""Bytes that are read at a time."""

DEFLATE_RATIO = 1032
"""How many bytes one byte of deflate's unpacks to at most (zlib's manual, "Technical details")."""


class Header(NamedTuple):
    """Shape and dtype of an array that is not read yet."""

    shape: tuple[int, ...]
    dtype: numpy.dtype


class Source(Protocol):
    """What has the bytes: a file, or a member of an archive that is unpacked on the way."""

    def read(self, size: int, /) -> bytes:
        """At most so many of the next bytes; none at the end."""


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    """Return the shape in a header.

    Raises:
        FileError: it is none: a list or tuple of at most 32 whole numbers from 0 to 2⁶³ - 1.
    """
    lengths = isinstance(shape, (list, tuple)) and all(type(length) is int for length in shape)
    if not lengths or len(shape) > MAX_AXES or not all(0 <= length < 1 << 63 for length in shape):
        raise FileError(f"array {clipped(name)} has the shape {clipped(shape)}")
    # NumPy multiplies all lengths but the zeros.
    if sum(length.bit_length() for length in shape) > 62 + len(shape):
        raise FileError(f"array {clipped(name)} has the shape {clipped(shape)}: too large")
    return tuple(shape)


def read_into(array: numpy.ndarray, stream: Source, name: str) -> None:
    """Fill a C-contiguous array with the next bytes of ``stream``, a piece at a time.

    Raises:
        FileError: the stream ends before.
    """
    target: Any = memoryview(array.reshape(-1).view(numpy.uint8)) if array.size else b""  # type: ignore[arg-type]
    place = 0
    while place < len(target):
        piece = stream.read(min(CHUNK, len(target) - place))
        if not piece:
            raise FileError(f"array {clipped(name)} ends after {place:,} of its {len(target):,} bytes")
        target[place : place + len(piece)] = piece
        place += len(piece)
