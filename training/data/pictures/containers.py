"""Reduce image files to their first picture before a decoder reads them.

A decoder gets the first picture only: no text, color profile, EXIF, thumbnail or further frame, whose number and size
a file may choose. Six formats are recognized by their first bytes; all others are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from training.data.pictures.errors import ImageError
from training.data.pictures.tiff import Directory, orientation, reduce_tiff

_PNG_KEPT = {b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_JPEG_KEPT = _JPEG_FRAMES | {0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE}  # tables, JFIF's and Adobe's segments
_JPEG_SCANS = 500
"""The most scans of a JPEG. A progressive one has about ten; each can cost as much time as the whole picture."""


@dataclass(frozen=True)
class Container:
    """The first picture of a file.

    Attributes:
        format: Pillow's name of the format.
        content: a file with this picture alone.
        orientation: EXIF's, 1 to 8; 1 is upright.
        working_memory: bytes that the decoder needs in addition to the picture's own, as far as the header tells.
    """

    format: str
    content: bytes
    orientation: int = 1
    working_memory: int = 0


def open_container(content: bytes) -> Container:
    """Recognize the format of a file and reduce it to its first picture.

    Raises:
        ImageError: the format is not one of the six, or the file's structure is damaged.
    """
    for beginning, read in _FORMATS:
        if content.startswith(beginning):
            try:
                return read(content)
            except (struct.error, IndexError) as error:
                raise ImageError("cannot be read (the file ends too early)") from error
    raise ImageError("not a PNG, JPEG, BMP, GIF, WebP or TIFF image")


def _png(content: bytes) -> Container:
    if content[8:16] != b"\0\0\0\rIHDR":
        raise ImageError("cannot be read (a PNG that does not begin with its header)")
    kept, exif, position = [content[:33]], b"", 33
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        chunk = content[position : position + 12 + length]
        if kind in _PNG_KEPT:
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = exif or chunk[8:-4]
        position += 12 + length
        if kind == b"IEND":
            break
    return Container("PNG", b"".join(kept), orientation(exif))


def _jpeg(content: bytes) -> Container:
    kept, exif, frame, position = [content[:2]], b"", b"", 2
    while True:
        while content[position] != 0xFF:  # Pillow skips it, too
            position += 1
        while content[position] == 0xFF:
            position += 1
        marker = content[position]
        position += 1
        if marker == 0 or marker == 1 or 0xD0 <= marker <= 0xD8:
            continue
        if marker == 0xD9:
            raise ImageError("cannot be read (a JPEG without a picture)")
        if marker == 0xDA:
            break
        (length,) = struct.unpack_from(">H", content, position)
        segment = content[position : position + max(length, 2)]
        if marker in _JPEG_FRAMES:
            if frame:
                raise ImageError("cannot be read (a JPEG with two frame headers)")
            frame = segment
        if marker in _JPEG_KEPT:
            kept.append(bytes((0xFF, marker)) + segment)
        elif marker == 0xE1 and segment[2:8] == b"Exif\0\0":
            exif = exif or segment[8:]
        position += max(length, 2)
    scans = content[position - 2 :]
    if scans.count(b"\xff\xda") > _JPEG_SCANS:
        raise ImageError(f"cannot be read (a JPEG of more than {_JPEG_SCANS} scans)")
    return Container("JPEG", b"".join((*kept, scans)), orientation(exif), _coefficients(frame))


def _coefficients(frame: bytes) -> int:
    """Return the bytes of all coefficients of a frame, which a decoder keeps if there are several scans."""
    height, width, components = struct.unpack_from(">HHB", frame, 3)
    sampling = [divmod(frame[9 + 3 * index], 16) for index in range(components)]
    widest, highest = (max((factors[axis] for factors in sampling), default=1) or 1 for axis in (0, 1))
    samples = sum(across * down for across, down in sampling)
    return 2 * samples * -(-width // widest) * -(-height // highest)


def _gif(content: bytes) -> Container:
    position = 13 + _color_table(content[10])
    kept = [content[:position]]
    while content[position] != 0x3B:
        start = position
        if content[position] == 0x21:  # an extension; that of kind 0xF9 holds the transparency
            position = _after_blocks(content, position + 2)
            if content[start + 1] == 0xF9:
                kept.append(content[start:position])
        elif content[position] == 0x2C:
            position += 10 + _color_table(content[position + 9])
            kept.append(content[start:position])
            kept.append(content[position : _after_blocks(content, position + 1, strict=False)] + b"\0;")
            return Container("GIF", b"".join(kept))
        else:
            position += 1
    raise ImageError("cannot be read (a GIF without a picture)")


def _color_table(flags: int) -> int:
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


def _after_blocks(content: bytes, position: int, strict: bool = True) -> int:
    """Return the position after a series of GIF blocks; if not ``strict``, a file may end before."""
    while position < len(content) or strict:
        length = content[position]
        position += 1 + length
        if not length:
            break
    return position


def _bmp(content: bytes) -> Container:
    (header,) = struct.unpack_from("<I", content, 14)
    run_lengths = header >= 20 and struct.unpack_from("<I", content, 30)[0] in (1, 2)
    width, height = struct.unpack_from("<ii", content, 18) if run_lengths else (0, 0)
    # Pillow decodes run lengths in Python, a second for a megapixel: this weight limits the size of such pictures.
    return Container("BMP", content, working_memory=32 * abs(width * height))


def _webp(content: bytes) -> Container:
    if content[8:12] != b"WEBP":
        raise ImageError("not a PNG, JPEG, BMP, GIF, WebP or TIFF image")
    kept, exif, position = [], b"", 12
    size = _webp_size(content)
    while position + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, position)
        chunk = content[position : position + 8 + length + length % 2]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes((chunk[8] & 0b00010010,)) + chunk[9:]  # alpha and animation; no metadata
        if kind in (b"VP8X", b"ANIM", b"ALPH", b"VP8 ", b"VP8L", b"ANMF"):
            kept.append(chunk)
        elif kind == b"EXIF":
            exif = exif or chunk[8:].removeprefix(b"Exif\0\0")
        position += len(chunk)
        if kind in (b"VP8 ", b"VP8L", b"ANMF") and not exif:
            exif = _webp_exif(content, position)
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            break
    body = b"WEBP" + b"".join(kept)
    # The decoder keeps two canvases and returns a third; a lossless picture is held once more while it is decoded.
    memory = 20 * size[0] * size[1] + 2 * len(body)
    return Container("WEBP", b"RIFF" + struct.pack("<I", len(body)) + body, orientation(exif), memory)


def _webp_size(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return bits % 2**14 + 1, (bits >> 14) % 2**14 + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width % 2**14, height % 2**14
    raise ImageError("cannot be read (a WebP that does not begin with a picture)")


def _webp_exif(content: bytes, position: int) -> bytes:
    while position + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, position)
        if kind == b"EXIF":
            return content[position + 8 : position + 8 + length].removeprefix(b"Exif\0\0")
        position += 8 + length + length % 2
    return b""


def _tiff(content: bytes) -> Container:
    directory = Directory.of(content)
    memory = directory.decoded_at_once + len(content)
    return Container("TIFF", reduce_tiff(content, directory), directory.orientation, memory)


_FORMATS: tuple[tuple[bytes, Callable[[bytes], Container]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
)
