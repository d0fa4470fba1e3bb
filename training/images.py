"""Image files as a network's input, prepared the way its training images were made.

The data sets show bright figures on black. An image of exactly the network's size is taken for one of theirs
and used as it is; any other is cropped to what it shows, scaled and centred.
"""

from __future__ import annotations

import math
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from PIL import Image


class ImageError(ValueError):
    """An image that cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class Framing:
    """How the figure lies in its frame.

    Attributes:
        fill: the longest side of the figure, as a share of the frame's.
        by_mass: put the centre of mass, not that of the bounding box, into the middle.
    """

    fill: float
    by_mass: bool


MNIST = Framing(fill=20 / 28, by_mass=True)
"""Digits fit a box of 20 by 20 in a frame of 28 by 28, their centre of mass at pixel (14, 14) (LeCun, Cortes & Burges,
"The MNIST database of handwritten digits")."""

FASHION_MNIST = Framing(fill=1.0, by_mass=False)
"""Clothes fill the frame, in its middle (Xiao, Rasul & Vollgraf 2017, "Fashion-MNIST", section 2)."""

CONTENT = 0.25
"""From this share of the full contrast on, a pixel belongs to the figure."""

LEAST_CONTRAST = 0.1
"""An image whose figure stands out less is blank: what is left is the noise of a camera or a scanner."""


def load_image(path: str | Path, size: tuple[int, int] = (28, 28), framing: Framing = MNIST) -> numpy.ndarray:
    """The image in a file as input for a network: float32 (1, H, W), bright on dark, in 0 … 1.

    Args:
        path: PNG, JPEG or any other format that Pillow reads; of an animation, the first frame.
        size: (H, W).
        framing: how the figure is placed; that of the network's training images.

    Raises:
        ImageError: the file is no image, is damaged, is larger than Pillow allows, or shows nothing.
        OSError: it cannot be opened.
    """
    try:
        return prepare(read_grayscale(path), size, framing)[None]
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def read_grayscale(path: str | Path) -> numpy.ndarray:
    """The image in a file in grey, upright, on an opaque background: float32 (H, W) in 0 … 1.

    What is transparent becomes white, or black where the rest is bright.

    Raises:
        ImageError: the file is no image, is damaged, or is larger than Pillow allows; the path is not in the message.
        OSError: it cannot be opened.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    with Path(path).open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damage outside the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(stream) as image:
                image.load()
                return _gray(ImageOps.exif_transpose(image))
        except UnidentifiedImageError as error:
            raise ImageError("not an image of a known format") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageError(f"too large ({error})") from error
        except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error) as error:
            raise ImageError(f"cannot be read ({error})") from error  # a damaged file can raise any of these


def prepare(gray: numpy.ndarray, size: tuple[int, int] = (28, 28), framing: Framing = MNIST) -> numpy.ndarray:
    """Places what an image shows in a frame of ``size``, as bright on dark.

    An image with a bright border is inverted: bright all around for one of ``size``, which is left at that; bright for
    the most part for any other, which is stretched to full contrast, cropped to its figure, scaled with antialiasing
    and placed by ``framing``.

    Args:
        gray: floating (H, W) in 0 … 1.
        size: (H, W) of the frame.

    Returns:
        float32 ``size`` in 0 … 1.

    Raises:
        ImageError: the image is blank.
    """
    gray = gray.astype(numpy.float32)
    if not gray.size or gray.max() - gray.min() < LEAST_CONTRAST:
        raise ImageError("a blank image: nothing stands out from its background")
    middle = (float(gray.min()) + float(gray.max())) / 2
    if gray.shape == tuple(size):
        # A quarter may be dark. In two images of Fashion-MNIST half of the border is bright, in none three quarters.
        return 1 - gray if numpy.quantile(_border(gray), 0.25) > middle else gray
    if numpy.median(_border(gray)) > middle:
        gray = 1 - gray
    background = numpy.median(_border(gray))
    figure = ((gray - background) / (gray.max() - background)).clip(0, 1)
    return _place(_fit(_crop(figure), size, framing.fill), size, framing.by_mass)


def _gray(image: Image.Image) -> numpy.ndarray:
    if image.mode.startswith("I"):  # 16 bits; Pillow's conversion to "L" would clip them at 255
        return numpy.asarray(image).clip(0, 65535).astype(numpy.float32) / 65535
    if image.has_transparency_data:
        return _on_background(numpy.asarray(image.convert("RGBA").convert("LA")))
    if image.mode not in ("1", "L", "F"):
        image = image.convert("RGB")
    return numpy.divide(numpy.asarray(image.convert("L")), 255, dtype=numpy.float32)


def _on_background(gray_alpha: numpy.ndarray) -> numpy.ndarray:
    gray, alpha = numpy.divide(gray_alpha, 255, dtype=numpy.float32).transpose(2, 0, 1)
    visible = alpha.sum()
    background = 0.0 if visible and (gray * alpha).sum() / visible > 0.5 else 1.0
    return gray * alpha + numpy.float32(background) * (1 - alpha)


def _border(gray: numpy.ndarray) -> numpy.ndarray:
    return numpy.concatenate((gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]))


def _crop(figure: numpy.ndarray) -> numpy.ndarray:
    content = figure >= CONTENT
    rows, columns = numpy.flatnonzero(content.any(axis=1)), numpy.flatnonzero(content.any(axis=0))
    return figure[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _fit(figure: numpy.ndarray, size: tuple[int, int], fill: float) -> numpy.ndarray:
    from PIL import Image

    scale = min(fill * frame / length for frame, length in zip(size, figure.shape, strict=True))
    height, width = (max(1, round(scale * length)) for length in figure.shape)
    # Pillow widens the filter by the scale, so that no pixel of the original is passed over.
    scaled = Image.fromarray(figure).resize((width, height), Image.Resampling.BICUBIC)
    return numpy.asarray(scaled).clip(0, 1)


def _place(figure: numpy.ndarray, size: tuple[int, int], by_mass: bool) -> numpy.ndarray:
    frame = numpy.zeros(size, numpy.float32)
    place = []
    for axis, (length, room) in enumerate(zip(figure.shape, size, strict=True)):
        if by_mass:
            mass = figure.sum(axis=1 - axis)
            centre = float(mass @ numpy.arange(length)) / float(mass.sum())
            start = math.ceil(room / 2 - centre - 0.5)  # to the nearest pixel; of two equally near, the first
        else:
            start = (room - length) // 2
        start = min(max(start, 0), room - length)  # nothing is cut off
        place.append(slice(start, start + length))
    frame[tuple(place)] = figure
    return frame
