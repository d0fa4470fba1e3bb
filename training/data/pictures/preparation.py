"""Turn pictures into a network's input in the way that its training images were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy

from training.data.pictures.errors import ImageError
from training.data.pictures.figure import Figure, find_figure
from training.data.pictures.framing import Framing, frame_figure
from training.data.pictures.garment import find_garment
from training.data.pictures.likeness import Likeness
from training.data.pictures.reading import Picture
from training.files.printable import printable

MNIST = Framing(fill=20 / 28, by_mass=True, strokes=(0.1, 0.18))
"""Digits fit a box of 20 by 20 in a frame of 28 by 28, with the center of mass at pixel (14, 14) (LeCun, Cortes &
Burges, "The MNIST database of handwritten digits"). Half of MNIST's strokes are 10 to 15 % of the digit's length
wide."""

FASHION_MNIST = Framing(fill=1.0, by_mass=False)
"""Clothes fill the frame and are centered (Xiao, Rasul & Vollgraf 2017, "Fashion-MNIST", section 2)."""

FRAMINGS: dict[str, Framing | None] = {"mnist": MNIST, "fashion-mnist": FASHION_MNIST, "none": None}
"""The framings by name; "none" only resizes a picture."""

OF_DATASETS = {"mnist10k": "mnist", "mnist": "mnist", "fashion-mnist": "fashion-mnist"}
"""The preparation of the images of each data set; others have "none"."""


@dataclass(frozen=True)
class Prepared:
    """A network's input.

    Attributes:
        image: float32 (C, H, W) in 0 … 1.
        warnings: reasons to doubt a prediction, as texts.
    """

    image: numpy.ndarray
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Preparation:
    """The way to turn pictures into a network's input.

    Attributes:
        name: a key of ``FRAMINGS``.
        shape: (C, H, W) of the input; C is 1 or 3.
        likeness: of the training images; None if unknown.
    """

    name: str
    shape: tuple[int, int, int]
    likeness: Likeness | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], shape: tuple[int, ...]) -> Preparation:
        """Return the preparation that ``describe`` wrote into a model's config under ``"input"``.

        Args:
            config: of the model; without ``"input"`` the preparation is that of the data set it names.
            shape: of the network's input.

        Raises:
            ValueError: the network does not take pictures in gray or color, or the description is damaged.
        """
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
            rows = "; rows of features come from a .csv" if len(shape) == 1 else ""
            raise ValueError(
                f"the model takes inputs of {tuple(shape)}; an image file gives (1, H, W) in gray or (3, H, W) in color"
                f"{rows}"
            )
        described = config.get("input", {"preparation": OF_DATASETS.get(str(config.get("dataset")), "none")})
        name = described.get("preparation") if isinstance(described, Mapping) else None
        if not isinstance(name, str) or name not in FRAMINGS:
            given = printable(repr(name)[:80])
            raise ValueError(f"the model's input: preparation is one of {', '.join(FRAMINGS)}, not {given}")
        if shape[0] != 1:
            name = "none"
        likeness = described.get("likeness")
        return cls(
            name,
            (int(shape[0]), int(shape[1]), int(shape[2])),
            None if likeness is None else Likeness.from_config(likeness, shape),
        )

    @staticmethod
    def describe(dataset: str, images: numpy.ndarray) -> dict[str, Any]:
        """Return the description of a model's input for its config, under ``"input"``.

        Data of the name of a set, such as a folder called ``mnist``, have its preparation if most images are so framed.

        Args:
            dataset: the name of the training data.
            images: its training images (N, C, H, W), uint8 or floating.
        """
        likeness = Likeness.of(images)
        name = OF_DATASETS.get(dataset, "none")
        framing = FRAMINGS[name]
        return {
            "preparation": name if framing is None or _are_framed(images, framing) else "none",
            **({} if likeness is None else {"likeness": likeness.as_config()}),
        }

    def __call__(self, picture: Picture) -> Prepared:
        """Turn a picture into an input.

        Raises:
            ImageError: it is blank.
        """
        framing = FRAMINGS[self.name]
        findings: tuple[str, ...] = ()
        if framing is None:
            image = fit_frame(picture.as_channels(self.shape[0]), self.shape[1:])
        else:
            gray, findings = prepare(picture.gray(), self.shape[1:], framing)
            image = gray[None]
        unlike = self.likeness is not None and not self.likeness.includes(image)
        return Prepared(image, findings + (("unlike the training images",) if unlike else ()))


def prepare(
    gray: numpy.ndarray, size: tuple[int, int] = (28, 28), framing: Framing = MNIST
) -> tuple[numpy.ndarray, tuple[str, ...]]:
    """Place the figure in a picture in a frame of ``size``, bright on dark.

    A picture of this size that is framed already, like the images of the data set itself, is not changed, or inverted
    if it is dark on bright.

    Args:
        gray: floating (H, W) in 0 … 1.
        size: (H, W) of the frame.
        framing: position and size of the figure.

    Returns:
        float32 ``size`` in 0 … 1, and reasons to doubt it, as texts.

    Raises:
        ImageError: the picture is blank.

    Examples:
        >>> import numpy
        >>> from training.data.pictures.preparation import prepare
        >>> paper = numpy.ones((60, 40))
        >>> paper[10:50, 18:22] = 0  # a stroke of ink
        >>> image, warnings = prepare(paper)
        >>> image.shape, image.dtype, warnings
        ((28, 28), dtype('float32'), ())
    """
    gray = gray.astype(numpy.float32)
    if not gray.size or gray.max() - gray.min() < 0.02:
        raise ImageError("a blank image: nothing stands out from its background")
    if gray.shape == tuple(size):
        for framed in (gray, 1 - gray):
            if is_framed(framed, framing):
                return framed, ()
    figure = _figure(gray) if framing.by_mass else find_garment(gray)
    return frame_figure(figure.ink, size, framing), figure.findings


def _are_framed(images: numpy.ndarray, framing: Framing) -> bool:
    """Return whether most of some images (N, C, H, W), evenly chosen, are bright on black and framed."""
    some = images[:: -(-len(images) // _LOOKED_AT)]
    scale = 255 if images.dtype == numpy.uint8 else 1
    framed = [is_framed(image[0].astype("float32") / scale, framing) for image in some]
    return images.shape[1] == 1 and 2 * sum(framed) > len(framed)


def is_framed(gray: numpy.ndarray, framing: Framing) -> bool:
    """Return whether a picture is bright on black and framed like a training image."""
    if not framing.by_mass:
        # A quarter of the border may be bright. In two images of Fashion-MNIST half of it is, in none three quarters.
        return float(numpy.quantile(_border(gray), 0.25)) <= (float(gray.min()) + float(gray.max())) / 2
    if float(numpy.median(gray)) > 0.05 or float(gray.max()) < 0.5:
        return False
    seen = gray > 0.1
    if not seen.any():
        return False
    mass = float(gray.sum())
    lengths = []
    for axis, length in enumerate(gray.shape):
        places = numpy.flatnonzero(seen.any(axis=1 - axis))
        lengths.append(float(places[-1] - places[0] + 1) / length)
        center = float(gray.sum(axis=1 - axis) @ numpy.arange(length)) / mass
        if abs(center - length / 2) > 0.03 * length:
            return False
    return abs(max(lengths) - framing.fill) <= 0.075


def fit_frame(image: numpy.ndarray, size: tuple[int, int]) -> numpy.ndarray:
    """Resize an image (C, H, W) to ``size``, with antialiasing; one of that size is not changed."""
    from PIL import Image

    if image.shape[1:] == tuple(size):
        return image.astype(numpy.float32)
    channels = [
        numpy.asarray(Image.fromarray(channel.astype(numpy.float32)).resize(size[::-1], Image.Resampling.BICUBIC))
        for channel in image
    ]
    return numpy.stack(channels).clip(0, 1)


_LOOKED_AT = 100
"""How many training images are looked at to tell how they were prepared."""

_ANALYSED = 384
"""Pixels of the longer side at which figures are searched for."""

_SMALL = 96
"""A figure shorter than this is cut out of the picture and searched for again at a higher resolution, if there is
one."""


def _figure(gray: numpy.ndarray) -> Figure:
    factor = -(-max(gray.shape) // _ANALYSED)
    if factor == 1:
        return find_figure(gray)
    figure = find_figure(_shrunk(gray, factor))
    top, left, bottom, right = figure.box
    length = max(bottom - top, right - left)
    if length >= _SMALL:
        return figure
    rows, columns = (
        slice(max(low - length, 0) * factor, (high + length) * factor) for low, high in ((top, bottom), (left, right))
    )
    closer = gray[rows, columns]
    found = find_figure(_shrunk(closer, -(-max(closer.shape) // _ANALYSED)))
    return replace(found, findings=tuple(dict.fromkeys(figure.findings + found.findings)))


def _shrunk(gray: numpy.ndarray, factor: int) -> numpy.ndarray:
    if factor == 1:
        return gray
    height, width = (max(1, length // factor) for length in gray.shape)
    return gray[: height * factor, : width * factor].reshape(height, factor, width, factor).mean(axis=(1, 3))


def _border(gray: numpy.ndarray) -> numpy.ndarray:
    return numpy.concatenate((gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]))
