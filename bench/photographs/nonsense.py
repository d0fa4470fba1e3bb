"""Draw pictures that show no digit, or several."""

from __future__ import annotations

from collections.abc import Callable

import numpy
from PIL import Image

from bench.photographs.draw import Page, draw
from training.data.pictures.morphology import blur


def _noise(digits: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    return rng.random(_size(rng))


def _size(rng: numpy.random.Generator) -> tuple[int, int]:
    return int(rng.integers(60, 320)), int(rng.integers(60, 320))


def _landscape(digits: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    """Return sky over hills with trees: noise of every scale."""
    height, width = _size(rng)
    texture = sum(
        _stretched(rng.random((2 + 2**scale, 2 + 2**scale)), (height, width)) * 0.6**scale for scale in range(7)
    )
    y = numpy.linspace(0, 1, height)[:, None]
    horizon = 0.4 + 0.2 * _stretched(rng.random((1, 6)), (1, width))
    sky, ground = 0.8 + 0.1 * texture, 0.25 + 0.25 * texture
    return numpy.where(y < horizon, sky, ground).clip(0, 1)


def _stretched(values: numpy.ndarray, size: tuple[int, int]) -> numpy.ndarray:
    return numpy.asarray(Image.fromarray(values.astype(numpy.float32)).resize(size[::-1], Image.Resampling.BICUBIC))


def _text(digits: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    """Return rows of small characters."""
    rows, columns = int(rng.integers(4, 12)), int(rng.integers(6, 20))
    page = numpy.zeros((rows * 30, columns * 18))
    for row in range(rows):
        for column in range(columns):
            if rng.random() < 0.8:
                glyph = digits[rng.integers(len(digits))][2:26, 5:23]
                page[row * 30 + 2 : row * 30 + 26, column * 18 : column * 18 + 18] = glyph / 255
    return numpy.pad(0.95 - 0.85 * page, 20, constant_values=0.95)


def _several(digits: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    """Return two or three digits in a row."""
    pages = [draw(digits[rng.integers(len(digits))], "tightly cropped", rng) for _ in range(rng.integers(2, 4))]
    drawn = [_stretched(page / page.max(), (120, max(20, 120 * page.shape[1] // page.shape[0]))) for page in pages]
    return 0.9 * numpy.concatenate([numpy.pad(page, ((30, 30), (14, 14)), mode="edge") for page in drawn], axis=1)


def _stripes(digits: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    height, width = _size(rng)
    y, x = numpy.mgrid[0:height, 0:width]
    waves = numpy.sin(x / rng.uniform(3, 20)) * (numpy.sin(y / rng.uniform(3, 20)) if rng.random() < 0.5 else 1)
    return 0.5 + 0.45 * numpy.sign(waves)


def _block(digits: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    """Return a filled rectangle, about as high as it is wide."""
    side = int(rng.integers(40, 120))
    block = numpy.full((side, int(side * rng.uniform(0.7, 1.4))), 0.15)
    return numpy.pad(block, int(side * rng.uniform(0.3, 1)), constant_values=0.9)


def _clouds(digits: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    clouds = blur(rng.random(_size(rng)).astype(numpy.float32), rng.uniform(3, 12))
    return (clouds - clouds.min()) / (clouds.max() - clouds.min())


def _blank(digits: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    """Return an empty page with uneven light and a little noise."""
    height, width = _size(rng)
    ramp = numpy.linspace(1, rng.uniform(0.5, 1), width)[None, :] * numpy.ones((height, 1))
    return (0.9 * ramp + rng.normal(0, rng.uniform(0, 0.03), ramp.shape)).clip(0, 1)


NONSENSE: dict[str, Callable[[numpy.ndarray, numpy.random.Generator], Page]] = {
    "white noise": _noise,
    "landscape": _landscape,
    "page of text": _text,
    "several digits": _several,
    "stripes": _stripes,
    "block": _block,
    "clouds": _clouds,
    "blank page": _blank,
}
"""The functions that draw a picture, by its name; each takes test images and a generator."""
