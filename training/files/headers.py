"""Headers of arrays in files, and checks of them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy

from training.files.errors import FileError, clipped

MAX_AXES = 32
CHUNK = 1 << 18
"""Bytes to read at a time."""

DEFLATE_RATIO = 1032
"""The most bytes that one byte of deflate data unpacks to (zlib's manual, "Technical details")."""


class Header(NamedTuple):
    """Shape and dtype of an array that is not read yet."""

    shape: tuple[int, ...]
    dtype: numpy.dtype


class Source(Protocol):
    """Source of bytes: a file, or a member of an archive, unpacked while it is read."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` of the next bytes; b"" at the end."""


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    """Return the shape in a header after checking it.

    Raises:
        FileError: it is not a list or tuple of at most 32 integers from 0 to 2⁶³ - 1.
    """
    lengths = isinstance(shape, (list, tuple)) and all(type(length) is int for length in shape)
    if not lengths or len(shape) > MAX_AXES or not all(0 <= length < 1 << 63 for length in shape):
        raise FileError(f"array {clipped(name)} has the shape {clipped(shape)}")
    # NumPy multiplies all lengths except zeros.
    if sum(length.bit_length() for length in shape) > 62 + len(shape):
        raise FileError(f"array {clipped(name)} has the shape {clipped(shape)}: too large")
    return tuple(shape)


def read_into(array: numpy.ndarray, stream: Source, name: str) -> None:
    """Fill a C-contiguous array with the next bytes of ``stream``, a piece at a time.

    Raises:
        FileError: the stream ends too early.
    """
    target: Any = memoryview(array.reshape(-1).view(numpy.uint8)) if array.size else b""  # type: ignore[arg-type]
    place = 0
    while place < len(target):
        piece = stream.read(min(CHUNK, len(target) - place))
        if not piece:
            raise FileError(f"array {clipped(name)} ends after {place:,} of its {len(target):,} bytes")
        target[place : place + len(piece)] = piece
        place += len(piece)
