"""Read NumPy's ``.npz``: a zip archive of arrays, each with a short header before its bytes."""

from __future__ import annotations

import errno
import math
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

import numpy

from training.files.errors import FileError, clipped, shortened
from training.files.headers import DEFLATE_RATIO, Header, checked_shape, read_into

MAX_HEADER = 4096
"""The most bytes of an array's header: an array of 32 axes takes less than 800."""

MAX_LIST = 1 << 20
"""The most bytes of the list of members: ten thousand of them."""

_ENCRYPTED = 0x1

# An entry of a dict, as Python writes it. It is matched, not evaluated: Python's parser has no limits. Python 2 wrote
# an L after a large number.
_ENTRY = re.compile(
    r"'descr' *: *'(?P<descr>[<>|=]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|U[1-9][0-9]{0,3}))'"
    r"|'fortran_order' *: *(?P<fortran>True|False)"
    r"|'shape' *: *\((?P<shape>[0-9L, ]*)\)"
)


class NpzReader:
    """The arrays of an open ``.npz`` file.

    Args:
        texts: read arrays of texts, too.

    Attributes:
        headers: shape and dtype of each array, by name.

    Raises:
        FileError: the file is not a zip archive, or a member is not an array of numbers, is encrypted, uses another
            compression than NumPy's, has a duplicate name, or announces more bytes than it can hold.
    """

    def __init__(self, stream: BinaryIO, texts: bool = False) -> None:
        self._texts = texts
        with _damage("no zip archive"):
            self._archive = zipfile.ZipFile(_Limited(stream))
        self.headers: dict[str, Header] = {}
        self._members: dict[str, zipfile.ZipInfo] = {}
        size = stream.seek(0, os.SEEK_END)
        packed = sum(member.compress_size for member in self._archive.infolist())
        if packed > size:
            raise FileError(f"its members overlap: they announce {packed:,} bytes in a file of {size:,}")
        for member in self._archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in self.headers:
                raise FileError(f"two members are called {clipped(name)}")
            _check_member(member, size)
            self._members[name] = member
            with self._opened(name) as (_, self.headers[name], _):
                pass

    def read(self, name: str) -> numpy.ndarray:
        """Return an array; reading takes a few megabytes more than the array.

        Raises:
            FileError: the data is damaged, or has another size than the header announces.
        """
        with self._opened(name) as (stream, (shape, dtype), fortran):
            array = numpy.empty(shape[::-1] if fortran else shape, dtype)
            read_into(array, stream, name)
            if stream.read(1):  # reading to the end checks the checksum
                raise FileError(f"array {clipped(name)} is longer than announced")
        return array.T if fortran else array

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[IO[bytes], Header, bool]]:
        """Open a member after its header; yield the stream, the header, and whether the array is in Fortran order."""
        member = self._members[name]
        with _damage(f"array {clipped(name)} is damaged"), self._archive.open(member) as stream:
            header, fortran, size = _read_header(stream, name, self._texts)
            needed, held = math.prod(header.shape) * header.dtype.itemsize, member.file_size - size
            if needed != held:
                raise FileError(f"array {clipped(name)} takes {needed:,} bytes, but {held:,} follow its header")
            yield stream, header, fortran


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Turn any error of unpacking into a FileError, except those of the disk and of memory."""
    try:
        yield
    except (FileError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a seek to an impossible position
            raise
        raise FileError(f"{what}: {shortened(error)}") from error


class _Limited:
    """A file that refuses to return more than ``MAX_LIST`` bytes at once: zipfile reads the whole list of members at
    once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_LIST:
            content = self._stream.read(MAX_LIST + 1)
            if len(content) > MAX_LIST:
                raise FileError(f"its list of members takes more than {MAX_LIST:,} bytes")
            return content
        return self._stream.read(size)


def _check_member(member: zipfile.ZipInfo, size: int) -> None:
    name = clipped(member.filename)
    if member.flag_bits & _ENCRYPTED:
        raise FileError(f"member {name} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FileError(
            f"member {name} is compressed by method {member.compress_type}; expected 0 or 8, as NumPy writes"
        )
    ratio = 1 if member.compress_type == zipfile.ZIP_STORED else DEFLATE_RATIO
    if member.file_size > ratio * min(member.compress_size, size):
        raise FileError(
            f"member {name} announces {member.file_size:,} bytes, more than its {member.compress_size:,} packed bytes "
            f"in a file of {size:,} can hold"
        )


def _read_header(stream: IO[bytes], name: str, texts: bool) -> tuple[Header, bool, int]:
    """Return the header of an array, whether it is in Fortran order, and the header's size."""
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY" or len(start) < 8 or start[6] not in (1, 2, 3):
        raise FileError(f"member {clipped(name)} begins with the bytes {start.hex(' ')}, unlike a NumPy array")
    width = 2 if start[6] == 1 else 4
    prefix = stream.read(width)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER:
        raise FileError(
            f"array {clipped(name)} announces a header of {length:,} bytes; at most {MAX_HEADER:,} are read"
        )
    text = stream.read(length).decode("latin-1")
    entries = {str(entry.lastgroup): entry[str(entry.lastgroup)] for entry in _ENTRY.finditer(text)}
    is_text = "U" in entries.get("descr", "")
    if len(entries) != 3 or is_text > texts or "".join(_ENTRY.sub("", text).split()) not in ("{,,}", "{,,,}"):
        raise FileError(
            f"array {clipped(name)} has the header {clipped(text)}; expected a number's descr, fortran_order and shape"
        )
    lengths = [length.strip().removesuffix("L") for length in entries["shape"].split(",")]
    if not lengths[-1]:
        del lengths[-1]  # of "3," and of nothing
    if not all(length.isdigit() and len(length) < 20 for length in lengths):
        raise FileError(f"array {clipped(name)} has the shape {clipped(entries['shape'])}")
    shape = checked_shape(name, [int(length) for length in lengths])
    with _damage(f"array {clipped(name)} has the dtype {entries['descr']}"):
        dtype = numpy.dtype(entries["descr"])  # not every machine has dtypes of 16 bytes
    return Header(shape, dtype), entries["fortran"] == "True", 8 + width + length
