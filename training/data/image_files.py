"""Read pictures in files as the inputs of samples: all are checked once, and decoded again as batches need them."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy

from backend import threads
from training.data.idx import DataError
from training.data.inputs import Inputs
from training.data.normalization import Normalization
from training.data.pictures.errors import ImageError
from training.data.pictures.preparation import fit_frame
from training.data.pictures.reading import LONGEST_SIDE, WITHOUT_WARNINGS, Picture, read_picture
from training.files.printable import printable

KEPT_BYTES = 384 << 20
"""Pictures of at most so many bytes in all are kept in memory, once decoded; those of a larger set are not."""

_SHOWN = 3
"""The most files that an error names."""

Progress = Callable[[int], None]


class ImageFiles(Inputs):
    """Pictures in files, as bytes (N, C, H, W): decoded by all threads whenever a batch needs them, or kept if few.

    The constructor decodes every file once: what cannot be read is told before a training begins.

    Args:
        files: the pictures' files.
        size: (H, W) to which all are resized; None if all have one size, or that of the longest side is at hand.
        channels: 1 for gray, 3 for color; None means gray if all pictures are.
        progress: called with the number of files that have been read since the last call.

    Raises:
        DataError: files cannot be read as pictures (the first are named), or they have different sizes and ``size`` is
            None.
        OSError: a file cannot be opened.
    """

    dtype = numpy.dtype("uint8")

    def __init__(
        self,
        files: Sequence[Path],
        size: tuple[int, int] | None = None,
        channels: int | None = None,
        progress: Progress = lambda count: None,
    ) -> None:
        self.files = list(files)
        seen = _Seen(len(self.files), size, channels)
        with WITHOUT_WARNINGS:
            for first in range(0, len(self.files), _AT_A_TIME):
                part = range(first, min(first + _AT_A_TIME, len(self.files)))
                threads.run(lambda place: seen.look(place, self.files[place]), part)
                seen.limit_memory(part.stop)
                progress(len(part))
        seen.raise_faults(self.files)
        self._size = size or seen.common_size(self.files)
        self._channels = channels or max(seen.channels, default=1)
        self.shape = (len(self.files), self._channels, *self._size)
        self._sums, self._squares = seen.sums, seen.squares
        self.checksum = zlib.crc32(seen.checksums.data)
        self._kept: numpy.ndarray | None = None
        if not seen.is_full:
            self._kept = numpy.empty((len(self.files), *self.stored_shape), self.dtype)
            seen.move_into(self._kept)

    def read(self, indices: numpy.ndarray, out: numpy.ndarray) -> None:
        if self._kept is not None:
            out[...] = self._kept[indices]
            return

        def decode(place: int) -> None:
            pixels = _bytes_of(read_picture(self.files[indices[place]]), self._size, self._channels)
            out[place] = pixels if pixels.ndim == 3 else pixels[..., None]  # gray is repeated in all colors

        with WITHOUT_WARNINGS:
            threads.run(decode, range(len(indices)))

    def normalization(self, indices: numpy.ndarray) -> Normalization:
        """Return the mean and standard deviation of some of the pictures, without reading them again."""
        height, width = self._size
        sums, squares = (numbers[indices].sum(axis=0, dtype=object) for numbers in (self._sums, self._squares))
        count = self._channels
        return Normalization.from_sums(sums[:count], squares[:count], len(indices) * height * width)


_AT_A_TIME = 256


class _Seen:
    """Sizes and statistics of pictures, gathered while all are decoded once, and their pixels while they are few."""

    def __init__(self, count: int, size: tuple[int, int] | None, channels: int | None) -> None:
        self._size, self._wanted = size, channels
        self.sizes: list[tuple[int, int]] = [(0, 0)] * count
        self.channels = [1] * count
        self.sums = numpy.zeros((count, 3), "int64")
        self.squares = numpy.zeros((count, 3), "int64")
        self.checksums = numpy.zeros(count, "uint32")
        self._pixels: list[numpy.ndarray | None] = [None] * count
        self.is_full = False
        self._faults: dict[int, Exception] = {}

    def look(self, place: int, file: Path) -> None:
        """Decode a picture and note what it is like."""
        try:
            if not file.is_file():  # opening a pipe would wait for its writer
                raise ImageError(f"{printable(file)}: expected a file, got a broken link, a pipe or a device")
            pixels = _bytes_of(read_picture(file), self._size, self._wanted)
        except (ImageError, OSError) as error:
            self._faults[place] = error
            return
        self.sizes[place] = (pixels.shape[0], pixels.shape[1])
        self.checksums[place] = zlib.crc32(numpy.ascontiguousarray(pixels).data)
        self.channels[place] = 1 if pixels.ndim == 2 else 3
        numbers = pixels.reshape(-1, self.channels[place]).astype("float64")  # their sums are whole, below 2**53: exact
        self.sums[place], self.squares[place] = numbers.sum(axis=0), numpy.einsum("pc,pc->c", numbers, numbers)
        if not self.is_full:
            self._pixels[place] = pixels

    def limit_memory(self, done: int) -> None:
        """Let go of the pixels if those of the first ``done`` pictures are too many; a gray one may become colored."""
        if not self.is_full and sum(3 * height * width for height, width in self.sizes[:done]) > KEPT_BYTES:
            self.is_full, self._pixels = True, [None] * len(self._pixels)

    def move_into(self, kept: numpy.ndarray) -> None:
        """Move the pixels of all pictures into an array (N, H, W, C)."""
        self._pixels.reverse()
        for place in range(len(kept)):
            pixels = self._pixels.pop()
            kept[place] = pixels if pixels.ndim == 3 else pixels[..., None]  # type: ignore[union-attr, index]

    def raise_faults(self, files: Sequence[Path]) -> None:
        """Raise a DataError that names the first files that cannot be read, if there are any."""
        if not self._faults:
            return
        first = [self._faults[place] for place in sorted(self._faults)[:_SHOWN]]
        said = "; ".join(_in_words(error) for error in first)
        more = f"; and {len(self._faults) - _SHOWN:,} more" if len(self._faults) > _SHOWN else ""
        raise DataError(f"{len(self._faults):,} of {len(files):,} pictures cannot be read: {said}{more}")

    def common_size(self, files: Sequence[Path]) -> tuple[int, int]:
        """Return the size of all pictures; raise a DataError if there are several."""
        (size, _), *others = Counter(self.sizes).most_common()
        if others:
            place = self.sizes.index(others[0][0])
            raise DataError(
                f"the pictures have {len(others) + 1:,} sizes: most are {_in_pixels(size)}, but "
                f"{printable(files[place])} is {_in_pixels(others[0][0])}; give the size that all are brought to, such "
                "as --size 64 (size=64)"
            )
        if max(size) >= LONGEST_SIDE:
            raise DataError(
                f"the pictures have {_in_pixels(size)} pixels and more, too many for a network; give the size that all "
                "are brought to, such as --size 64 (size=64)"
            )
        return size


def _bytes_of(picture: Picture, size: tuple[int, int] | None, channels: int | None) -> numpy.ndarray:
    """Return a picture's pixels as bytes: (H, W) in gray, (H, W, 3) in color, resized if a size is given."""
    pixels = picture.pixels
    if channels == 1 and pixels.ndim == 3:
        pixels = picture.gray()
    if size is not None and pixels.shape[:2] != size:
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        resized = fit_frame(planes, size)
        pixels = resized[0] if pixels.ndim == 2 else resized.transpose(1, 2, 0)
    return numpy.rint(pixels * 255).astype(numpy.uint8)


def _in_pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{printable(str(error.filename))}: {error.strerror}"
    return str(error)
