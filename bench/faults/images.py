"""Damaged image files: each is read, or refused in one line, in bounded memory."""

from __future__ import annotations

import io
import resource
import struct
import sys
import zlib
from collections.abc import Generator
from typing import Any

import numpy
from PIL import Image

from training.data.pictures.errors import ImageError
from training.data.pictures.reading import MEMORY, decode

MEMORY_BESIDE = 64 * 2**20
"""Bytes that the process may grow by in addition to ``MEMORY``: buffers of the decoders and of NumPy."""

_LENGTHS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_HEADER = 400
"""Half of the damage hits this many first bytes: only pixels follow them."""


def run(count: int, seed: int) -> Generator[str | None, None, None]:
    """Damage valid files of the six formats and read them."""
    rng = numpy.random.default_rng(seed)
    files = corpus()
    names = list(files)
    for trial in range(count):
        name = names[trial % len(names)]
        content = damaged(files[name], files[names[rng.integers(len(names))]], rng)
        if content.startswith(b"\x89PNG") and rng.random() < 0.7:
            content = with_checksums(content)
        yield broken(content, f"{name}, trial {trial} of seed {seed}")


def broken(content: bytes, name: str) -> str | None:
    """Read one file; return None, or a line that says which promise was broken."""
    before = _peak()
    try:
        picture = decode(content)
    except ImageError as error:
        if "\n" in str(error):
            return f"{name}: an error of several lines: {error!r}"
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error}"
    else:
        pixels = picture.pixels
        if pixels.dtype != numpy.float32 or not (pixels.size and 0 <= pixels.min() <= pixels.max() <= 1):
            return f"{name}: pixels of {pixels.dtype} from {pixels.min()} to {pixels.max()}"
    grown = _peak() - before
    return f"{name}: {grown / 2**20:.0f} MB" if grown > MEMORY + MEMORY_BESIDE else None


def corpus() -> dict[str, bytes]:
    """Return small valid files of every kind of each format."""
    y, x = numpy.mgrid[0:37, 0:41]
    gray = Image.fromarray((127 + 100 * numpy.sin(x / 4) * numpy.cos(y / 5)).astype(numpy.uint8))
    color = Image.merge("RGB", (gray, gray.rotate(90), gray.rotate(180)))
    seen = color.copy()
    seen.putalpha(gray)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    exif.get_ifd(0x8769)[0x9286] = "a comment"
    more: dict[str, Any] = {"exif": exif, "icc_profile": b"profile" * 20}
    bilevel = gray.convert("1")
    return {
        "gray PNG": _saved(gray, "PNG"),
        "16-bit PNG": _saved(Image.fromarray(numpy.asarray(gray).astype(numpy.uint16) * 257), "PNG"),
        "RGBA PNG": _saved(seen, "PNG", **more),
        "palette PNG": _saved(color.quantize(16), "PNG", transparency=3),
        "animated PNG": _saved(color, "PNG", pages=2),
        "JPEG": _saved(color, "JPEG", **more, comment="a comment"),
        "progressive JPEG": _saved(color, "JPEG", progressive=True),
        "gray JPEG": _saved(gray, "JPEG"),
        "CMYK JPEG": _saved(color.convert("CMYK"), "JPEG"),
        "MPO": _saved(color, "MPO", pages=2),
        "GIF": _saved(color, "GIF", comment="a comment"),
        "animated GIF": _saved(seen, "GIF", pages=2),
        "BMP": _saved(color, "BMP"),
        "palette BMP": _saved(color.quantize(16), "BMP"),
        "run-length BMP": _run_lengths(),
        "WebP": _saved(color, "WEBP", **more),
        "lossless WebP": _saved(seen, "WEBP", lossless=True),
        "animated WebP": _saved(color, "WEBP", pages=2),
        "TIFF": _saved(color, "TIFF", **more),
        "TIFF of two pages": _saved(color, "TIFF", pages=2),
        "float TIFF": _saved(gray.convert("F"), "TIFF"),
        "LZW TIFF": _saved(color, "TIFF", compression="tiff_lzw"),
        "Deflate TIFF": _saved(seen, "TIFF", compression="tiff_deflate"),
        "JPEG TIFF": _saved(color, "TIFF", compression="jpeg"),
        "PackBits TIFF": _saved(gray, "TIFF", compression="packbits"),
        "fax TIFF": _saved(bilevel, "TIFF", compression="group4"),
    }


def damaged(content: bytes, other: bytes, rng: numpy.random.Generator) -> bytes:
    """Return a file with one to four damages, some of them pieces of another file."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(max(1, min(len(data), _HEADER) if rng.random() < 0.5 else len(data))))
        length = int(rng.integers(1, 40))
        match rng.integers(7):
            case 0:
                data[place : place + 1] = rng.bytes(1)
            case 1:
                data[place : place + 1] = bytes((data[place] ^ (1 << int(rng.integers(8))),)) if data else b""
            case 2:
                form = rng.choice(["<H", ">H", "<I", ">I"])
                value = int(rng.choice(_LENGTHS)) % 256 ** struct.calcsize(form)
                data[place : place + struct.calcsize(form)] = struct.pack(form, value)
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = data[place : place + length] * int(rng.integers(1, 20))
            case 5:
                start = int(rng.integers(len(other)))
                data[place : place + length] = other[start : start + length]
            case 6 if rng.random() < 0.3:
                del data[place:]
    return bytes(data)


def with_checksums(content: bytes) -> bytes:
    """Return a PNG with correct checksums: with wrong ones the decoder refuses it before the damage matters."""
    data, position = bytearray(content), 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return bytes(data)


def _saved(image: Image.Image, kind: str, pages: int = 1, **options: Any) -> bytes:
    stream = io.BytesIO()
    first, *others = (image.rotate(45 * page) for page in range(pages))
    more: dict[str, Any] = {"save_all": True, "append_images": others} if others else {}
    first.save(stream, kind, **more, **options)
    return stream.getvalue()


def _run_lengths() -> bytes:
    """Return a BMP of 8 bits, run-length encoded; Pillow does not write any."""
    rows = b"".join(bytes((20, row, 21, 255 - row, 0, 0)) for row in range(37)) + b"\0\1"
    palette = b"".join(bytes((level, level, level, 0)) for level in range(256))
    offset = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, 41, 37, 1, 8, 1, len(rows), 2835, 2835, 256, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + palette + rows


def _peak() -> int:
    """Return the peak memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
