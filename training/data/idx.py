"""The IDX format, in which MNIST and its kin are published: plain or gzipped.

Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "File formats": two zero
bytes, a byte for the element type (0x08: unsigned byte), a byte for the number of axes, then each axis's
length as a big-endian 32-bit integer, then the elements in C order and nothing more.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kernels.labels import find_out_of_range, range_error
from training.files.durable import write_atomically

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    AnyPath = Path | Traversable

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08
_KINDS = {1: "labels", 3: "images"}


class DataError(ValueError):
    """Data that cannot be used: the message names the file, what was found in it and what is needed."""


def read_idx(path: AnyPath, ndim: int, *, sha256: str | None = None) -> np.ndarray:
    """Reads an IDX file of unsigned bytes: 3 axes for images (magic 0x00000803), 1 for labels (0x00000801).

    Whether it is gzipped is told by its first bytes, not its name: some servers unpack what they send.

    Args:
        path: a file, or a package resource.
        ndim: the number of axes that it must have.
        sha256: hexadecimal SHA-256 that its uncompressed content must have.

    Returns:
        uint8 array of ``ndim`` axes. It is read-only: it lies on the bytes that were read.

    Raises:
        DataError: empty, damaged gzip, bad magic number, truncated or trailing bytes, wrong checksum.
        OSError: the file cannot be opened or read.
    """
    content = read_content(path)
    array = parse_idx(content, ndim, path)
    if sha256 is not None:
        check_sha256(content, sha256, path)
    return array


def read_labelled_images(
    images_path: AnyPath,
    labels_path: AnyPath,
    classes: int = 10,
    *,
    sha256: tuple[str, str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads two IDX files that belong together, and checks each and both against each other.

    Args:
        images_path: file of N grey images of H × W pixels.
        labels_path: file of their N labels.
        classes: the labels must be 0 … classes - 1.
        sha256: checksums of the uncompressed contents, images first. Looked at last: what is wrong with a
            file says more than that its sum is another one.

    Returns:
        Images, uint8 (N, 1, H, W), and labels, uint8 (N,), both read-only.

    Raises:
        DataError: as :func:`read_idx`; a label out of range; as many labels as images are not there.
        OSError: a file cannot be opened or read.
    """
    image_content, label_content = read_content(images_path), read_content(labels_path)
    images = parse_idx(image_content, 3, images_path)
    labels = parse_idx(label_content, 1, labels_path)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images)} images but {labels_path} holds {len(labels)} labels; "
            "the two must be of one set"
        )
    bad = find_out_of_range(labels, classes)
    if bad is not None:
        raise DataError(f"{labels_path}: {range_error(labels, bad, classes)} (byte {8 + bad} of the content)")
    if sha256 is not None:
        check_sha256(image_content, sha256[0], images_path)
        check_sha256(label_content, sha256[1], labels_path)
    return images[:, np.newaxis], labels


def write_idx(path: Path, array: np.ndarray) -> bytes:
    """Writes a uint8 array as IDX, gzipped where the name ends in ``.gz``. Equal arrays give equal bytes.

    Returns:
        The uncompressed content, for its checksum.

    Raises:
        TypeError: ``array`` is not uint8.
    """
    if array.dtype != np.uint8:
        raise TypeError(f"write_idx writes uint8 arrays, not {array.dtype}")
    content = _magic(array.ndim) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    # mtime=0: the header would carry the time of writing otherwise, and no two builds would be alike.
    write_atomically(path, gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)
    return content


def read_content(path: AnyPath) -> bytes:
    """The bytes of a file, unpacked if they are gzipped.

    Raises:
        DataError: the gzip data are damaged.
    """
    raw = path.read_bytes()
    if not raw.startswith(_GZIP_MAGIC):
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip data in a file of {len(raw)} bytes ({error})") from error


def parse_idx(content: bytes, ndim: int, path: AnyPath | str) -> np.ndarray:
    """The array in the uncompressed ``content`` of an IDX file; ``path`` is for the error message.

    Raises:
        DataError: see :func:`read_idx`.
    """
    magic, header_size = _magic(ndim), 4 + 4 * ndim
    kind = f"{_KINDS[ndim]} " if ndim in _KINDS else ""
    if not content:
        raise DataError(f"{path}: the file is empty (0 bytes); an IDX file of {kind}was expected")
    if content[:4] != magic:
        raise DataError(
            f"{path}: begins with the bytes {content[:4].hex(' ')}; an IDX file of {kind}begins with "
            f"{magic.hex(' ')} (gzipped: {_GZIP_MAGIC.hex(' ')})"
        )
    if len(content) < header_size:
        raise DataError(f"{path}: ends after {len(content)} bytes; its header alone takes {header_size}")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", ndim, offset=4))
    expected, found = math.prod(shape), len(content) - header_size
    if found != expected:
        wrong = f"{expected - found} are missing" if found < expected else f"{found - expected} are too many"
        raise DataError(
            f"{path}: its header (bytes {content[4:header_size].hex(' ', 4)}) announces "
            f"{' x '.join(map(str, shape))} = {expected} bytes of data, but {found} follow: {wrong}"
        )
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)


def check_sha256(content: bytes, expected: str, path: AnyPath | str) -> None:
    """Checks the uncompressed ``content`` of a file.

    Raises:
        DataError: another sum, with both.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(
            f"{path}: the SHA-256 of its {len(content)} uncompressed bytes is {found}, expected {expected}; "
            "the file is damaged or belongs to another data set"
        )


def _magic(ndim: int) -> bytes:
    return bytes((0, 0, _UNSIGNED_BYTE, ndim))
