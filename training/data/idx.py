"""Read and write the IDX format of MNIST and similar data sets, plain or gzipped.

Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "File formats": two zero
bytes, a byte for the element type (0x08: unsigned byte), a byte for the number of axes, then each axis's
length as a big-endian 32-bit integer, then the elements in C order.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.labels import find_out_of_range, range_error
from training.files.durable import write_atomically
from training.files.headers import CHUNK, DEFLATE_RATIO

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    AnyPath = Path | Traversable

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08
_KINDS = {1: "labels", 3: "images"}


class DataError(ValueError):
    """Unusable data; the message names the file, what was found in it and what was expected."""


def read_idx(path: str | AnyPath, ndim: int, *, sha256: str | None = None) -> np.ndarray:
    """Read an IDX file of unsigned bytes: 3 axes for images (magic 0x00000803), 1 for labels (0x00000801).

    A gzipped file is recognized by its first bytes, not by its name: some servers unpack the files that they send.

    Args:
        path: a file, or a package resource.
        ndim: the expected number of axes.
        sha256: the expected SHA-256 of the uncompressed content, in hexadecimal; None skips the check.

    Returns:
        A uint8 array of ``ndim`` axes, read-only.

    Raises:
        DataError: empty, damaged gzip, bad magic number, truncated or trailing bytes, wrong checksum.
        OSError: the file cannot be opened or read.
    """
    path = _path(path)
    array, content = _read(path, ndim)
    if sha256 is not None:
        check_sha256(content, sha256, path)
    return array


def read_labelled_images(
    images_path: str | AnyPath,
    labels_path: str | AnyPath,
    classes: int = 10,
    *,
    sha256: tuple[str, str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Read an IDX file of images and the IDX file of their labels, and check that they fit together.

    Args:
        images_path: file of N gray images of H × W pixels.
        labels_path: file of their N labels.
        classes: the labels must be 0 … classes - 1.
        sha256: checksums of the uncompressed contents, images first. They are checked last, since other errors say more
            about the cause.

    Returns:
        Images, uint8 (N, 1, H, W), and labels, uint8 (N,), both read-only.

    Raises:
        DataError: as ``read_idx``; a label is out of range; the numbers of images and labels differ.
        OSError: a file cannot be opened or read.
    """
    images_path, labels_path = _path(images_path), _path(labels_path)
    images, image_content = _read(images_path, 3)
    labels, label_content = _read(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images)} images but {labels_path} holds {len(labels)} labels; "
            "expected as many labels as images"
        )
    bad = find_out_of_range(labels, classes)
    if bad is not None:
        raise DataError(f"{labels_path}: {range_error(labels, bad, classes)} (byte {8 + bad} of the content)")
    if sha256 is not None:
        check_sha256(image_content, sha256[0], images_path)
        check_sha256(label_content, sha256[1], labels_path)
    return images[:, np.newaxis], labels


def write_idx(path: str | Path, array: np.ndarray) -> bytes:
    """Write a uint8 array as IDX, gzipped if the name ends in ``.gz``. Equal arrays give equal bytes.

    Returns:
        The uncompressed content, for its checksum.

    Raises:
        TypeError: ``array`` is not uint8.

    Examples:
        >>> import numpy
        >>> from training.data import read_idx, write_idx
        >>> content = write_idx("labels.gz", numpy.uint8([3, 1, 4]))
        >>> len(content), read_idx("labels.gz", ndim=1)
        (11, array([3, 1, 4], dtype=uint8))
    """
    if getattr(array, "dtype", None) != np.uint8:
        raise TypeError(f"array must be a uint8 array, got {getattr(array, 'dtype', type(array).__name__)}")
    path = Path(path)
    content = _magic(array.ndim) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    # mtime=0: otherwise the header holds the time of writing, and two builds differ.
    write_atomically(path, gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)
    return content


def _path(path: str | os.PathLike[str] | AnyPath) -> AnyPath:
    """Return a path as a ``Path``; a package resource, which may not be a file, unchanged."""
    return path if hasattr(path, "joinpath") else Path(path)  # type: ignore[return-value]


def _read(path: AnyPath, ndim: int) -> tuple[np.ndarray, memoryview]:
    """Return the array of a file, and the uncompressed content that the array is a view of.

    At most one chunk more is read than the header announces, so that a small file that unpacks to gigabytes costs
    little.
    """
    with path.open("rb") as stream:
        packed = stream.read(2) == _GZIP_MAGIC
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        if not packed:
            return _parse(stream, size, size, ndim, path)
        try:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                return _parse(unpacked, None, DEFLATE_RATIO * size, ndim, path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path}: damaged gzip data in a file of {size} bytes ({error})") from error


def _parse(stream: Any, size: int | None, most: int, ndim: int, path: AnyPath) -> tuple[np.ndarray, memoryview]:
    """Parse an uncompressed stream; see ``_read``. ``size`` is its number of bytes, or None if unknown; ``most`` is a
    limit."""
    magic, header_size = _magic(ndim), 4 + 4 * ndim
    kind = f"{_KINDS[ndim]} " if ndim in _KINDS else ""
    header = _read_up_to(stream, header_size)
    if not header:
        raise DataError(f"{path}: the file is empty (0 bytes); an IDX file of {kind}was expected")
    if header[:4] != magic:
        raise DataError(
            f"{path}: begins with the bytes {header[:4].hex(' ')}; an IDX file of {kind}begins with "
            f"{magic.hex(' ')} (gzipped: {_GZIP_MAGIC.hex(' ')})"
        )
    if len(header) < header_size:
        raise DataError(f"{path}: ends after {len(header)} bytes; its header alone takes {header_size}")
    shape = tuple(int(length) for length in np.frombuffer(header, ">u4", ndim, offset=4))
    expected = math.prod(shape)
    announced = (
        f"{path}: its header (bytes {header[4:].hex(' ', 4)}) announces {' x '.join(map(str, shape))} = {expected} "
        "bytes of data, but"
    )
    if size is not None and size - header_size != expected:
        found = size - header_size
        wrong = f"{expected - found} are missing" if found < expected else f"{found - expected} are too many"
        raise DataError(f"{announced} {found} follow: {wrong}")
    if expected > most:
        raise DataError(f"{announced} at most {most} can follow")
    try:
        content = np.empty(header_size + expected, np.uint8)
        array = content[header_size:].reshape(shape)
    except (MemoryError, ValueError) as error:  # ValueError: 0 bytes, but more rows than an array can have
        raise DataError(f"{announced} no array can hold them: {error}") from error
    content[:header_size] = np.frombuffer(header, np.uint8)
    target = memoryview(content)  # type: ignore[arg-type]
    place = header_size
    while place < len(target):
        read = stream.readinto(target[place : place + CHUNK])
        if not read:
            found = place - header_size
            raise DataError(f"{announced} {found} follow: {expected - found} are missing")
        place += read
    surplus = len(_read_up_to(stream, CHUNK))  # reading to the end checks gzip's checksum
    if surplus:
        at_least = "at least " * (surplus == CHUNK)
        raise DataError(f"{announced} {at_least}{expected + surplus} follow: {at_least}{surplus} are too many")
    array.flags.writeable = False
    return array, target.toreadonly()


def _read_up_to(stream: Any, size: int) -> bytes:
    """Return the next ``size`` bytes; fewer only at the end."""
    content = b""
    while len(content) < size and (piece := stream.read(size - len(content))):
        content += piece
    return content


def check_sha256(content: bytes | memoryview, expected: str, path: AnyPath | str) -> None:
    """Check the SHA-256 of the uncompressed ``content`` of a file.

    Raises:
        DataError: the checksum differs; the message has both.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(
            f"{path}: the SHA-256 of its {len(content)} uncompressed bytes is {found}, expected {expected}; "
            "the file is damaged or belongs to another data set"
        )


def _magic(ndim: int) -> bytes:
    return bytes((0, 0, _UNSIGNED_BYTE, ndim))
