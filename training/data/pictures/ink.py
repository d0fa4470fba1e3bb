"""How much ink lies where: a picture without the light on its paper, without noise and without ruled lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from training.data.pictures.morphology import blur, closing, largest, smallest
from training.data.pictures.rules import without_rules

STROKE = 0.33
"""A stroke is narrower than this share of the shorter side of the picture; what is wider is paper in another light."""

LEAST_CONTRAST = 0.06
"""Ink takes at least this share of the light that falls on it; what takes less is the paper's own unevenness."""

_LEVEL = 0.35
"""From this share of the full ink on, a pixel belongs to a stroke."""

_FAINTEST = 0.6
"""Ink may be fainter in a part of the picture than elsewhere, down to this share."""

_RULE = 0.15
"""Rules have at least this share of the full ink."""

_UNEVEN = 0.15
_UNEVEN_SHARE = 0.01
"""On evenly lit paper at most this share of the pixels has more than that share of the full ink without being ink."""

_APART = 4
"""Pixels between two that are compared to see noise: beyond the reach of the blur."""

_NOISE = 3.5
"""What stands out by fewer standard deviations of the paper's noise is noise."""


@dataclass(frozen=True)
class Ink:
    """The ink of a picture.

    Attributes:
        amount: float32 (H, W): 0 on the paper, 1 where there is as much ink as anywhere near.
        share: float32 (H, W): the share of the light that it takes.
        level: from this amount on, a pixel belongs to a stroke.
        contrast: the share of the light that full ink takes.
        noise: the standard deviation of that share on the paper.
        steps: how much the light changes around each pixel.
        brighter: the share of the pixels with clearly more light than most of the paper.
    """

    amount: numpy.ndarray
    share: numpy.ndarray
    level: float
    contrast: float
    noise: float
    steps: numpy.ndarray
    brighter: float

    @property
    def mask(self) -> numpy.ndarray:
        """The pixels of strokes."""
        return self.amount >= self.level

    @property
    def is_even(self) -> bool:
        """Whether the paper around the strokes is equally bright everywhere."""
        paper = self.amount[~largest(self.mask, 5)]
        uneven = paper > max(_UNEVEN, _NOISE * self.noise / max(self.contrast, 1e-6))
        return max(float(uneven.sum()) / self.amount.size, self.brighter) <= _UNEVEN_SHARE

    @property
    def found(self) -> bool:
        """Whether anything stands out from the paper."""
        return self.contrast >= max(LEAST_CONTRAST, _NOISE * self.noise)


def find_inks(gray: numpy.ndarray, widest: float) -> tuple[Ink, Ink]:
    """Find what may be drawn in a picture, whatever the light: what is dark on bright, and what is bright on dark.

    Args:
        gray: float32 (H, W) in 0 … 1.
        widest: pixels; strokes are narrower, and light and shadow change over longer distances.
    """
    noise = _noise(gray, 1)
    smooth = blur(gray, max(min(max(gray.shape) / 320, 1.2), min(12 * noise, 1.2)) if min(gray.shape) > 40 else 0.0)
    window = 2 * int(widest / 2) + 1
    around = 2 * max(1, max(gray.shape) // 80) + 1
    high = largest(smooth, around)
    steps = (high - smallest(smooth, around)) / (high + 0.05)
    # Light falls on paper and ink alike: it is their ratio that stays, from the brighter to the darker of the two.
    white, black = closing(smooth, window), -closing(-smooth, window)
    dark = _ink((white - smooth) / (white + 0.02), window, steps)
    bright = _ink((smooth - black) / (smooth + 0.2), window, steps)
    return dark, bright


def _ink(share: numpy.ndarray, window: int, steps: numpy.ndarray) -> Ink:
    """Turn shares of light into ink."""
    # The brightest noise of a window makes the paper: what is left on blank paper is taken off.
    share = share - float(numpy.median(share))
    noise = _noise(share, _APART)
    light, share = -share, share.clip(0, 1)
    share = without_rules(share, max(_RULE * _strongest(share), 3 * noise))
    contrast = _strongest(share)
    near = largest(share, 2 * (min(share.shape) // 6) + 1).clip(_FAINTEST * contrast, contrast)
    amount = (share / numpy.maximum(near, 1e-6)).astype(numpy.float32)
    level = max(_LEVEL, _NOISE * noise / max(contrast, 1e-6))
    brighter = float((light > max(_UNEVEN * contrast, _NOISE * noise)).mean())
    return Ink(amount, share, level, contrast, noise, steps, brighter)


def _noise(image: numpy.ndarray, apart: int) -> float:
    """Return the standard deviation of noise, by differences between pixels so far apart: light changes little over
    that."""
    if image.shape[1] <= apart:
        return 0.0
    # Of a normal distribution, half of the differences are below 0.954 standard deviations.
    return 1.05 * float(numpy.median(abs(image[:, apart:] - image[:, :-apart])))


def _strongest(share: numpy.ndarray) -> float:
    """Return the share where there is ink: the median of the strongest pixels."""
    count = max(4, share.size // 300)
    strongest = numpy.partition(share.ravel(), -count)[-count:] if share.size > count else share.ravel()
    return float(numpy.median(strongest))


def misfit(mask: numpy.ndarray, steps: numpy.ndarray) -> float:
    """How little a mask looks like strokes, rather than the paper between them, from 0 to 1.

    Where its outline lies on no edge of the picture it ends in the middle of paper; and strokes do not end at the
    picture's border.

    Args:
        steps: of the ink.
    """
    outline = mask & ~smallest(mask, 3)
    inner = numpy.zeros_like(mask)
    inner[1:-1, 1:-1] = True
    here = steps[outline & inner]
    if not len(here):
        return 1.0
    cut = int(mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum())
    unsupported = int((here < 0.4 * numpy.quantile(here, 0.9)).sum())
    return (unsupported + cut) / (len(here) + cut)
