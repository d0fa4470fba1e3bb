"""Read the safetensors format: eight bytes for the length of a JSON header, the header, then the arrays' bytes.

The header maps an array's name to its ``dtype``, ``shape`` and ``data_offsets``, where its bytes begin and end after
the header; and ``__metadata__`` to texts by name. The arrays follow each other without gaps or overlaps up to the end
of the file. All of this is checked before an array is read.
"""

from __future__ import annotations

import math
import os
from typing import Any, BinaryIO

import numpy

from training.files import json_text
from training.files.errors import FileError, clipped
from training.files.headers import Header, checked_shape, read_into

_DTYPES = {
    name: numpy.dtype(code)
    for name, code in {
        "BOOL": "?",
        "U8": "u1",
        "I8": "i1",
        "U16": "<u2",
        "I16": "<i2",
        "U32": "<u4",
        "I32": "<i4",
        "U64": "<u8",
        "I64": "<i8",
        "F16": "<f2",
        "F32": "<f4",
        "F64": "<f8",
    }.items()
}
_ENTRY = ("dtype", "shape", "data_offsets")


class SafetensorsReader:
    """The arrays of an open ``.safetensors`` file.

    Attributes:
        headers: shape and dtype of each array, by name.
        metadata: texts by name.

    Raises:
        FileError: the header is damaged, or does not match the file's size.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise FileError(f"{size} bytes; expected 8 for the length of the header")
        length = int.from_bytes(prefix, "little")
        if length > min(size - 8, json_text.MAX_BYTES):
            raise FileError(
                f"announces a header of {length:,} bytes; {size - 8:,} follow, and at most {json_text.MAX_BYTES:,} "
                "are read"
            )
        header = json_text.parse(stream.read(length))
        if not isinstance(header, dict):
            raise FileError(f"its header is {clipped(header)}; expected an object")
        self.metadata = _metadata(header.pop("__metadata__", {}))
        self.headers: dict[str, Header] = {}
        self._starts: dict[str, int] = {}
        begins = []
        for name, entry in header.items():
            self.headers[name], begin, end = _entry(name, entry)
            self._starts[name] = 8 + length + begin
            begins.append((begin, end, name))
        reached = 0
        for begin, end, name in sorted(begins):
            if begin != reached:
                raise FileError(f"array {clipped(name)} begins at byte {begin:,}, expected {reached:,}")
            reached = end
        if reached != size - 8 - length:
            raise FileError(f"its header announces {reached:,} bytes of arrays, but {size - 8 - length:,} follow")

    def read(self, name: str) -> numpy.ndarray:
        """Return an array; reading takes no more memory than the array.

        Raises:
            FileError: the file has become shorter.
        """
        self._stream.seek(self._starts[name])
        header = self.headers[name]
        array = numpy.empty(header.shape, header.dtype)
        read_into(array, self._stream, name)
        return array


def _metadata(metadata: Any) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileError(f"its __metadata__ is {clipped(metadata)}; expected an object of strings")
    return metadata


def _entry(name: str, entry: Any) -> tuple[Header, int, int]:
    """Return the array's header, and where its bytes begin and end."""
    if not isinstance(entry, dict) or entry.keys() != set(_ENTRY):
        raise FileError(f"array {clipped(name)} is described by {clipped(entry)}; expected {', '.join(_ENTRY)}")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise FileError(
            f"array {clipped(name)} has the dtype {clipped(entry['dtype'])}; expected one of {', '.join(_DTYPES)}"
        )
    shape = checked_shape(name, entry["shape"])
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(offset) is not int for offset in offsets):
        raise FileError(f"array {clipped(name)} has data_offsets {clipped(offsets)}; expected two whole numbers")
    begin, end = offsets
    needed = math.prod(shape) * dtype.itemsize
    if begin < 0 or end - begin != needed:
        raise FileError(
            f"array {clipped(name)} lies at {clipped(offsets)}, but {clipped(shape)} of {dtype} takes "
            f"{clipped(needed)} bytes"
        )
    return Header(shape, dtype), begin, end
