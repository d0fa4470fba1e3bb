"""Read the directory of a TIFF file (EXIF is one, too), and reduce the file to the tags of its first picture."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from training.data.pictures.errors import ImageError

_ORIENTATION = 0x0112
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of a value, by its type."""

_KEPT = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284),  # size, samples, compression, colors, strips
    *(292, 293, 317, 320, 322, 323, 324, 325, 338, 339, 347),  # fax, predictor, palette, tiles, alpha, JPEG's tables
    *(529, 530, 531, 532),  # YCbCr
}
_COMPRESSIONS = {1: "none", 2: "CCITT", 3: "fax 3", 4: "fax 4", 5: "LZW", 7: "JPEG", 8: "Deflate"} | {
    32773: "PackBits",
    32946: "Deflate",
}
_LARGEST_TAG = 2**18
"""The most bytes of a tag: the offsets of 65,535 strips. Pillow makes a list of one object for each value."""


@dataclass(frozen=True)
class Directory:
    """The first directory of a TIFF file.

    Attributes:
        order: "<" or ">".
        start: the position of its entries.
        entries: (tag, type, count, the entry's 12 bytes).
        values: the first value of each tag that holds integers.
    """

    order: str
    start: int
    entries: tuple[tuple[int, int, int, bytes], ...]
    values: dict[int, int]

    @classmethod
    def of(cls, content: bytes) -> Directory:
        """Read the first directory of a file.

        Raises:
            struct.error: the file ends too early.
        """
        order = "<" if content[:2] == b"II" else ">"
        (place,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, place)
        entries, values = [], {}
        for index in range(count):
            at = place + 2 + 12 * index
            tag, kind, length = struct.unpack_from(f"{order}HHI", content, at)
            entries.append((tag, kind, length, content[at : at + 12]))
            if kind in (3, 4) and length:
                form, size = ("H", 2) if kind == 3 else ("I", 4)
                where = at + 8
                if size * length > 4:
                    (where,) = struct.unpack_from(f"{order}I", content, at + 8)
                if where + size <= len(content):
                    (values[tag],) = struct.unpack_from(f"{order}{form}", content, where)
        return cls(order, place, tuple(entries), values)

    @property
    def orientation(self) -> int:
        """Orientation of the picture, 1 to 8; 1 is upright."""
        value = self.values.get(_ORIENTATION, 1)
        return value if 1 <= value <= 8 else 1

    @property
    def decoded_at_once(self) -> int:
        """Bytes of a strip or tile, which is decoded at once if it is compressed."""
        if self.values.get(259, 1) == 1:
            return 0
        width, height = self.values.get(256, 0), self.values.get(257, 0)
        if 322 in self.values:
            width, height = self.values[322], self.values.get(323, 0)
        elif 278 in self.values:
            height = min(height, self.values[278])
        return width * height * self.values.get(277, 1) * max(self.values.get(258, 1), 1) // 8


def reduce_tiff(content: bytes, directory: Directory) -> bytes:
    """Return the file with the tags of its first directory that describe the picture's storage, and no others.

    Raises:
        ImageError: the compression is unknown, or a tag is longer than any picture needs.
    """
    compression = directory.values.get(259, 1)
    if compression not in _COMPRESSIONS:
        known = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ImageError(f"cannot be read (a TIFF of compression {compression}: expected one of {known})")
    kept = {}
    for tag, kind, length, entry in directory.entries:
        if tag not in _KEPT:
            continue
        if tag in kept:
            raise ImageError(f"cannot be read (a TIFF that gives tag {tag} twice)")
        if _SIZES.get(kind, 1) * length > _LARGEST_TAG:
            raise ImageError(f"cannot be read (a TIFF whose tag {tag} has {length} values)")
        kept[tag] = entry
    written = struct.pack(f"{directory.order}H", len(kept)) + b"".join(kept.values()) + bytes(4)
    return content[: directory.start] + written + content[directory.start + len(written) :]


def orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1 to 8; 1 (upright) also if it is missing or damaged."""
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        return Directory.of(exif).orientation
    except struct.error:
        return 1
