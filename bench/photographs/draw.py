"""Draw digits as a pen on paper would, photographed badly."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy
from PIL import Image

from training.data.pictures.morphology import blur, disk_dilation

Page = numpy.ndarray
"""A picture: float32 (H, W) in 0 … 1."""

_RESOLUTION = 6
"""Pixels of a drawing for each pixel of the digit."""


def draw(digit: numpy.ndarray, kind: str, rng: numpy.random.Generator) -> Page:
    """Draw a digit on a page.

    Args:
        digit: uint8 (28, 28), bright on black, as in MNIST.
        kind: one of ``KINDS``.
    """
    return KINDS[kind](digit, rng)


def _page(
    digit: numpy.ndarray,
    rng: numpy.random.Generator,
    *,
    pen: float | None = None,
    height: tuple[float, float] = (40, 260),
    margin: tuple[float, float] = (0.25, 0.9),
    contrast: tuple[float, float] = (0.5, 0.85),
) -> Page:
    """Return a page with ink on plain paper.

    Args:
        pen: the stroke's width, as a share of the digit's height; None keeps that of the digit.
        height: of the digit, in pixels.
        margin: on each side, as a share of the digit's longer side.
        contrast: how much darker than the paper the ink is.
    """
    ink = _ink(digit, pen, rng.uniform(*height))
    sides = (max(ink.shape) * rng.uniform(*margin, 4)).astype(int)
    paper = rng.uniform(0.75, 1.0)
    page = numpy.pad(ink, ((sides[0], sides[1]), (sides[2], sides[3])))
    return (paper * (1 - rng.uniform(*contrast) * page)).astype(numpy.float32)


def _ink(digit: numpy.ndarray, pen: float | None, height: float) -> numpy.ndarray:
    """Return the digit, cropped and with sharp edges: 1 where there is ink."""
    large = Image.fromarray(digit).resize((28 * _RESOLUTION, 28 * _RESOLUTION), Image.Resampling.BICUBIC)
    strokes = numpy.asarray(large, numpy.float32) / 255
    if pen is None:
        ink = ((strokes - 0.5) * 3 + 0.5).clip(0, 1)
    else:
        skeleton = thinned(strokes > 0.5).astype(numpy.float32)
        ink = disk_dilation(numpy.pad(skeleton, 24), max(pen * _height(skeleton) / 2, 0.5))
        ink = ((blur(ink, 0.7) - 0.5) * 3 + 0.5).clip(0, 1)
    rows, columns = numpy.nonzero(ink > 0.1)
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = height / max(ink.shape)
    size = tuple(max(1, round(side * scale)) for side in reversed(ink.shape))
    return numpy.asarray(Image.fromarray(ink).resize(size, Image.Resampling.LANCZOS)).clip(0, 1)


def _height(mask: numpy.ndarray) -> int:
    rows, columns = numpy.nonzero(mask)
    return int(max(numpy.ptp(rows), numpy.ptp(columns))) + 1


def thinned(mask: numpy.ndarray) -> numpy.ndarray:
    """Return the center lines of strokes, a pixel wide (T. Y. Zhang & C. Y. Suen 1984)."""
    mask = numpy.pad(mask, 1)
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            ring = [
                numpy.roll(mask, shift, (0, 1)).astype(numpy.int8)
                for shift in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            ]  # north, north-east, … north-west
            neighbors = sum(ring)
            rises = sum((ring[index] == 0) & (ring[(index + 1) % 8] == 1) for index in range(8))
            north, east, south, west = ring[0], ring[2], ring[4], ring[6]
            if first:
                open_side = (north * east * south == 0) & (east * south * west == 0)
            else:
                open_side = (north * east * west == 0) & (north * south * west == 0)
            gone = mask & (neighbors >= 2) & (neighbors <= 6) & (rises == 1) & open_side
            if gone.any():
                mask, changed = mask & ~gone, True
    return mask[1:-1, 1:-1]


def _plain(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    return _page(digit, rng)


def _noisy(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    return _noise(_page(digit, rng), rng)


def _noise(page: Page, rng: numpy.random.Generator) -> Page:
    return page + rng.normal(0, rng.uniform(0.03, 0.1), page.shape)


def _half_shadow(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    return _shadow(_page(digit, rng), rng)


def _shadow(page: Page, rng: numpy.random.Generator) -> Page:
    """Return the page with half of it in shadow, whose edge has any angle and sharpness."""
    height, width = page.shape
    angle = rng.choice([0, numpy.pi / 2, rng.uniform(0, numpy.pi)])
    y, x = numpy.mgrid[0:height, 0:width].astype(numpy.float32)
    distance = numpy.cos(angle) * (x - width * rng.uniform(0.35, 0.65)) + numpy.sin(angle) * (
        y - height * rng.uniform(0.35, 0.65)
    )
    softness = max(height, width) * rng.uniform(0.001, 0.06)
    shade = 1 / (1 + numpy.exp(-(distance / softness).clip(-50, 50)))
    shade = shade if rng.random() < 0.5 else 1 - shade
    return page * (1 - shade * rng.uniform(0.3, 0.65))


def _gradient(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    page = _page(digit, rng)
    angle = rng.uniform(0, 2 * numpy.pi)
    y, x = (numpy.linspace(-0.5, 0.5, length, dtype=numpy.float32) for length in page.shape)
    ramp = numpy.cos(angle) * x[None, :] + numpy.sin(angle) * y[:, None]
    return page * (0.62 + rng.uniform(0.3, 0.75) * ramp).clip(0.12, 1)


def _ruled(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    return _rules(_page(digit, rng, height=(60, 260)), rng)


def _rules(page: Page, rng: numpy.random.Generator) -> Page:
    """Return the page with lines that are lighter and thinner than the pen, sometimes squared or slightly turned."""
    height, width = page.shape
    tilt = rng.choice([0, rng.uniform(-0.03, 0.03)])
    y, x = numpy.mgrid[0:height, 0:width].astype(numpy.float32)
    distance = rng.uniform(0.12, 0.4) * max(height, width)
    thickness = max(1.0, rng.uniform(0.004, 0.009) * max(height, width))
    strength = rng.uniform(0.2, 0.55)
    directions = [y + tilt * x] + ([x - tilt * y] if rng.random() < 0.35 else [])
    for place in directions:
        offset = (place + rng.uniform(0, distance)) % distance
        lines = (thickness / 2 + 0.5 - abs(offset - distance / 2)).clip(0, 1)
        page = page * (1 - strength * lines)
    return page


def _specks(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    """Return a page with a few dark pixels next to the digit, and sometimes blots of several pixels."""
    page = _page(digit, rng, height=(28, 200))
    height, width = page.shape
    side = max(1, round(min(height, width) * rng.uniform(0, 0.025)))
    for _ in range(rng.integers(1, 6)):
        top, left = rng.integers(height), rng.integers(width)
        page[top : top + side, left : left + side] = rng.uniform(0, 0.2)
    return page


def _off_center(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    page = _page(digit, rng, margin=(0.08, 0.12))
    far = (max(page.shape) * rng.uniform(0.5, 2.5, 2)).astype(int)
    pads = [(int(reach), 0) if rng.random() < 0.5 else (0, int(reach)) for reach in far]
    return numpy.pad(page, pads, mode="edge")


def _thick(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    return _page(digit, rng, pen=rng.uniform(0.15, 0.21))


def _thin(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    return _page(digit, rng, pen=rng.uniform(0.015, 0.035), height=(90, 400))


def _white_on_black(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    """Return chalk on a board, noisy or half in shadow, or the negative of ink on paper."""
    page = _page(digit, rng)
    if rng.random() < 0.3:
        return 1 - _noise(page, rng)
    board = rng.uniform(0.05, 0.25)
    chalk = board + (1 - page) / float((1 - page).max()) * (rng.uniform(0.6, 1.0) - board)
    return _shadow(chalk, rng) if rng.random() < 0.5 else _noise(chalk, rng)


def _blurred(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    page = _page(digit, rng, height=(60, 260))
    page = blur(page, max(page.shape) * rng.uniform(0.005, 0.02))
    stream = io.BytesIO()
    Image.fromarray((page.clip(0, 1) * 255).astype(numpy.uint8)).save(stream, "JPEG", quality=int(rng.integers(8, 30)))
    return numpy.asarray(Image.open(stream), numpy.float32) / 255


def _faint(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    page = _page(digit, rng, contrast=(0.18, 0.35))
    return page + rng.normal(0, 0.015, page.shape)


def _small(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    return _noise(_page(digit, rng, height=(60, 160), margin=(1.5, 3.5)), rng)


def _tight(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    return _page(digit, rng, margin=(0.01, 0.06))


def _combined(digit: numpy.ndarray, rng: numpy.random.Generator) -> Page:
    """Return a page with two to four faults at once."""
    pens = (None, rng.uniform(0.03, 0.06), rng.uniform(0.12, 0.16))
    pen = pens[rng.integers(3)]
    page = _page(digit, rng, pen=pen, height=(90, 300), contrast=(0.55, 0.85))
    faults = [_rules, _shadow, _noise, lambda page, _: blur(page, max(page.shape) * 0.006)]
    for index in sorted(rng.choice(4, rng.integers(2, 5), replace=False)):
        page = faults[index](page, rng)
    return page


KINDS: dict[str, Callable[[numpy.ndarray, numpy.random.Generator], Page]] = {
    "plain": _plain,
    "noise": _noisy,
    "half in shadow": _half_shadow,
    "gradient": _gradient,
    "ruled": _ruled,
    "specks": _specks,
    "off-centre": _off_center,  # the name seeds the pictures
    "thick": _thick,
    "thin": _thin,
    "white on black": _white_on_black,
    "blurred JPEG": _blurred,
    "faint": _faint,
    "small on the page": _small,
    "tightly cropped": _tight,
    "combined": _combined,
}
"""The functions that draw a page, by the name of its fault."""
