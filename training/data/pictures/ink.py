"""Find the ink of a picture, without the light on its paper, noise and ruled lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from training.data.pictures.morphology import blur, closing, largest, smallest
from training.data.pictures.rules import without_rules

STROKE = 0.33
"""A stroke is narrower than this share of the picture's shorter side; wider structures are light and shadow."""

LEAST_CONTRAST = 0.06
"""Ink absorbs at least this share of the light; unevenness of the paper absorbs less."""

_LEVEL = 0.35
"""From this share of the full ink on, a pixel belongs to a stroke."""

_FAINTEST = 0.6
"""Ink in a part of the picture may be fainter than elsewhere, down to this share."""

_RULE = 0.15
"""Rules have at least this share of the full ink."""

_UNEVEN = 0.15
_UNEVEN_SHARE = 0.01
"""On evenly lit paper at most ``_UNEVEN_SHARE`` of the other pixels have more than ``_UNEVEN`` of the full ink."""

_APART = 4
"""Distance in pixels of two that are compared to measure noise: more than the blur reaches."""

_NOISE = 3.5
"""A difference of fewer standard deviations of the paper's noise is noise."""


@dataclass(frozen=True)
class Ink:
    """The ink of a picture.

    Attributes:
        amount: float32 (H, W): 0 on the paper, 1 where there is as much ink as anywhere nearby.
        share: float32 (H, W): the share of the light that it absorbs.
        level: from this amount on, a pixel belongs to a stroke.
        contrast: the share of the light that full ink absorbs.
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
        """True if the paper around the strokes is equally bright everywhere."""
        paper = self.amount[~largest(self.mask, 5)]
        uneven = paper > max(_UNEVEN, _NOISE * self.noise / max(self.contrast, 1e-6))
        return max(float(uneven.sum()) / self.amount.size, self.brighter) <= _UNEVEN_SHARE

    @property
    def found(self) -> bool:
        """True if anything stands out from the paper."""
        return self.contrast >= max(LEAST_CONTRAST, _NOISE * self.noise)


def find_inks(gray: numpy.ndarray, widest: float) -> tuple[Ink, Ink]:
    """Find what may be drawn in a picture in any light: dark on bright, and bright on dark.

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
    # Light scales the brightness of paper and ink alike, so their ratio does not depend on it.
    white, black = closing(smooth, window), -closing(-smooth, window)
    dark = _ink((white - smooth) / (white + 0.02), window, steps)
    bright = _ink((smooth - black) / (smooth + 0.2), window, steps)
    return dark, bright


def _ink(share: numpy.ndarray, window: int, steps: numpy.ndarray) -> Ink:
    """Return the ink for the shares of light that are absorbed."""
    # The brightest noise of a window is taken for the paper: what that leaves on blank paper is subtracted.
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
    """Return the standard deviation of noise, from differences between pixels ``apart`` apart: light changes little
    over that distance."""
    if image.shape[1] <= apart:
        return 0.0
    # Of a normal distribution, half of the differences are below 0.954 standard deviations.
    return 1.05 * float(numpy.median(abs(image[:, apart:] - image[:, :-apart])))


def _strongest(share: numpy.ndarray) -> float:
    """Return the share of light that ink absorbs: the median of the strongest pixels."""
    count = max(4, share.size // 300)
    strongest = numpy.partition(share.ravel(), -count)[-count:] if share.size > count else share.ravel()
    return float(numpy.median(strongest))


def misfit(mask: numpy.ndarray, steps: numpy.ndarray) -> float:
    """Return how little a mask looks like strokes rather than the paper between them, from 0 to 1.

    An outline that lies on no edge of the picture ends in the middle of paper; and strokes do not end at the picture's
    border.

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
