"""Read image files as arrays, in bounded memory whatever they contain."""

from __future__ import annotations

import functools
import importlib
import io
import logging
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from training.data.pictures.containers import Container, open_container
from training.data.pictures.errors import ImageError
from training.files.printable import printable

if TYPE_CHECKING:
    from PIL import Image

logging.getLogger("PIL").addHandler(logging.NullHandler())  # it logs damage, which our errors report

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
"""Formats that are read; of an animation, the first frame."""

LARGEST_FILE = 64 * 2**20
"""The most bytes of a file."""

MEMORY = 224 * 2**20
"""The most bytes that a picture may take while it is decoded, its file included."""

MOST_PIXELS = 100_000_000

LONGEST_READ = 65_535
"""The most pixels of a side in the file: the limit of JPEG and GIF."""

LONGEST_SIDE = 1024
"""The most pixels of a side after reading; a longer one is reduced while it is read."""

_TURNS = {  # to turn a picture upright: whether to transpose it first, then the axes to flip
    1: (False, ()),
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


@dataclass(frozen=True)
class Picture:
    """A picture in a file.

    Attributes:
        pixels: float32 (H, W) in gray or (H, W, 3) in color, in 0 … 1, upright; in gray if the channels are equal,
            however the file stores them.
        size: (H, W) in the file; ``pixels`` has fewer if it is large.
    """

    pixels: numpy.ndarray
    size: tuple[int, int]

    def as_channels(self, channels: int) -> numpy.ndarray:
        """Return the pixels as (1, H, W) in gray or (3, H, W) in red, green and blue."""
        if channels == 1:
            return self.gray()[None]
        if self.pixels.ndim == 2:
            return numpy.repeat(self.pixels[None], 3, axis=0)
        return numpy.ascontiguousarray(self.pixels.transpose(2, 0, 1))

    def gray(self) -> numpy.ndarray:
        """Return the pixels (H, W) in gray: 0.299 red + 0.587 green + 0.114 blue, rounded to 1/255 as Pillow does."""
        if self.pixels.ndim == 2:
            return self.pixels
        weights = numpy.array([19595, 38470, 7471], numpy.float32) / 65536
        return numpy.floor(self.pixels @ weights * 255 + 0.5) / numpy.float32(255)


def read_picture(path: str | Path) -> Picture:
    """Read the picture in a file, upright, on an opaque background.

    Transparent parts become white, or black if the rest is bright. The file is read once, into memory; no other program
    and no other decoder than those of ``FORMATS`` is started.

    Raises:
        ImageError: the file is not such an image, is damaged, or is too large; the message names it.
        OSError: the file cannot be opened.
    """
    try:
        return decode(_content(path))
    except ImageError as error:
        raise ImageError(f"{printable(path)}: {error}") from error


def decode(content: bytes) -> Picture:
    """Decode the picture in the content of a file; see ``read_picture``.

    Raises:
        ImageError: as ``read_picture``, without the file's name.
    """
    from PIL import UnidentifiedImageError

    container = open_container(content)
    try:
        with WITHOUT_WARNINGS:
            return _decode(container, len(content))
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("too large (there is not enough memory to decode it)") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"cannot be read (a damaged {container.format})") from error
    except Exception as error:  # the file is in memory: any error of a decoder is due to its content
        raise ImageError(f"cannot be read ({error or type(error).__name__})") from error


def _content(path: str | Path) -> bytes:
    with open(path, "rb") as stream:
        # A buffer of the file's own size: to allocate the largest one takes longer than to read a small file.
        expected = os.fstat(stream.fileno()).st_size or LARGEST_FILE
        content = stream.read(min(expected, LARGEST_FILE) + 1)
    if len(content) > LARGEST_FILE:
        raise ImageError(f"too large (files of at most {LARGEST_FILE // 2**20} MB are read)")
    return content


@functools.cache
def _import_plugins() -> None:
    for plugin in ("Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP"):  # here, so that Pillow does not import others
        importlib.import_module(f"PIL.{plugin}ImagePlugin")


def _decode(container: Container, file_size: int) -> Picture:
    from PIL import Image

    _import_plugins()
    held = 2 * file_size + container.working_memory
    if held > MEMORY:  # WebP's decoder allocates its memory when the file is opened
        raise ImageError(f"too large ({_megabytes(held)})")
    with Image.open(io.BytesIO(container.content), formats=[container.format]) as image:
        if container.format == "JPEG":
            shrink = max(1.0, max(image.size) / LONGEST_SIDE)
            size = image.size
            image.draft(None, (max(1, int(size[0] / shrink)), max(1, int(size[1] / shrink))))
        else:
            size = image.size
        width, height = image.size
        pixel = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
        _check(size, held + width * height * pixel)
        with _WITHOUT_MESSAGES if container.format == "TIFF" else nullcontext():
            image.load()
        pixels = _turn(_without_channels(_flatten(_reduced(image))), container.orientation)
    size = size[::-1] if container.orientation <= 4 else size
    return Picture(pixels, size)


class _Shared:
    """A context of the whole process that threads share: the first to come enters it, the last to go leaves it."""

    def __init__(self, make: Callable[[], AbstractContextManager]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._context.__exit__(None, None, None)


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damage outside the picture, and Pillow's size limit: ours is lower
        yield


@contextmanager
def _no_messages() -> Iterator[None]:
    """Discard what C code writes to standard error, such as libtiff's messages about damaged files."""
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed: there is nothing to discard
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


WITHOUT_WARNINGS, _WITHOUT_MESSAGES = _Shared(_no_warnings), _Shared(_no_messages)
"""``with WITHOUT_WARNINGS:`` around many pictures saves the time that changing the filters takes for each."""


def _check(size: tuple[int, int], memory: int) -> None:
    width, height = size
    if width * height > MOST_PIXELS or max(size) > LONGEST_READ:
        raise ImageError(
            f"too large ({width} x {height} pixels; at most {MOST_PIXELS:,} are read, {LONGEST_READ:,} a side)"
        )
    if memory > MEMORY:
        raise ImageError(f"too large ({width} x {height} pixels, {_megabytes(memory)})")


def _megabytes(memory: int) -> str:
    return f"{memory / 2**20:,.0f} MB to decode; the limit is {MEMORY // 2**20} MB"


def _reduced(image: Image.Image) -> numpy.ndarray:
    """Return (H, W) in gray, (H, W, 3) in color or, with transparency, (H, W, 4) with colors times opacity, reduced to
    ``LONGEST_SIDE``."""
    width, height = image.size
    factor = math.ceil(max(width, height) / LONGEST_SIDE)
    to_floats = _converter(image)
    rows = factor * max(1, 2**18 // (width * factor))  # converted at a time: a copy of the whole picture may be large
    strips = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = to_floats(image.crop((0, top, width, bottom)) if bottom - top < height else image)
        strips.append(_average(strip, factor) if factor > 1 else strip)
    return numpy.concatenate(strips)


def _converter(image: Image.Image) -> Callable[[Image.Image], numpy.ndarray]:
    """Return a function that converts a strip of the picture to floats."""
    if image.mode.startswith("I"):  # 16 bits; Pillow's conversion to "L" would clip them at 255
        return lambda strip: numpy.asarray(strip).clip(0, 65535).astype(numpy.float32) / numpy.float32(65535)
    if image.mode == "F":
        low, high = (float(bound) for bound in image.getextrema())  # type: ignore[arg-type]
        scale = numpy.float32(1 if 0 <= low <= high <= 1 else 255)
        return lambda strip: numpy.nan_to_num(numpy.asarray(strip) / scale).clip(0, 1)
    if image.has_transparency_data:
        return lambda strip: _premultiplied(strip.convert("RGBA"))
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return lambda strip: numpy.divide(numpy.asarray(strip.convert(mode)), 255, dtype=numpy.float32)


def _premultiplied(strip: Image.Image) -> numpy.ndarray:
    floats = numpy.divide(numpy.asarray(strip), 255, dtype=numpy.float32)
    floats[..., :3] *= floats[..., 3:]
    return floats


def _average(strip: numpy.ndarray, factor: int) -> numpy.ndarray:
    """Return the means over squares of ``factor`` pixels; edge pixels are repeated beyond the border."""
    height, width = strip.shape[:2]
    pads = [(0, -height % factor), (0, -width % factor)] + [(0, 0)] * (strip.ndim - 2)
    padded = numpy.pad(strip, pads, mode="edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor, *strip.shape[2:])
    return blocks.mean(axis=(1, 3), dtype=numpy.float32)


def _flatten(floats: numpy.ndarray) -> numpy.ndarray:
    """Put a picture with transparency on white, or on black if its visible part is bright."""
    if floats.ndim == 2 or floats.shape[2] == 3:
        return floats
    colors, alpha = floats[..., :3], floats[..., 3:]
    visible = float(alpha.sum())
    bright = visible > 0 and float(colors.mean(axis=2).sum()) / visible > 0.5
    return colors + (0 if bright else 1) * (1 - alpha)


def _without_channels(pixels: numpy.ndarray) -> numpy.ndarray:
    """Return (H, W) of a picture (H, W, 3) without color; gray in a WebP has channels that differ by 1 of 255."""
    looked_at = (pixels[0], pixels) if pixels.ndim == 3 else ()  # the first row tells most pictures that have color
    is_gray = bool(looked_at) and all(abs(part - part[..., :1]).max() < 1.5 / 255 for part in looked_at)
    return pixels[..., 0] if is_gray else pixels


def _turn(pixels: numpy.ndarray, orientation: int) -> numpy.ndarray:
    transposed, flipped = _TURNS[orientation]
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    return numpy.ascontiguousarray(numpy.flip(pixels, flipped))
