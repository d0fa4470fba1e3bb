"""Place a figure in the frame that a network was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy

from training.data.pictures.morphology import disk_dilation


@dataclass(frozen=True)
class Framing:
    """The position and size of a figure in its frame.

    Attributes:
        fill: the longest side of the figure, as a share of the frame's.
        by_mass: put the center of mass, not that of the bounding box, into the middle.
        strokes: the width of strokes, as a share of the figure's longest side: thinner ones are made thicker,
            thicker ones thinner; None leaves them as they are.
    """

    fill: float
    by_mass: bool
    strokes: tuple[float, float] | None = None


_FINE = 6
"""Pixels for each pixel of the frame while strokes are made thicker or thinner."""


def frame_figure(figure: numpy.ndarray, size: tuple[int, int], framing: Framing) -> numpy.ndarray:
    """Scale a figure (h, w) and place it in a frame of ``size`` (H, W) that is 0 elsewhere."""
    if framing.strokes is not None:
        figure = _with_strokes(figure, size, framing)
    return _place(_fit(figure, size, framing.fill), size, framing.by_mass)


def stroke_width(figure: numpy.ndarray) -> float:
    """Return the mean width of strokes in pixels: twice the area divided by the outline's length."""
    mask = numpy.pad(figure >= 0.5, 1)
    outline = sum(int(numpy.count_nonzero(numpy.diff(mask.astype(numpy.int8), axis=axis))) for axis in range(2))
    # A digital outline is longer than the real one, by 4 / π on average over all directions.
    return 2 * float(mask.sum()) / max(outline * math.pi / 4, 1e-6)


def _with_strokes(figure: numpy.ndarray, size: tuple[int, int], framing: Framing) -> numpy.ndarray:
    fine = _fit(figure, (_FINE * size[0], _FINE * size[1]), framing.fill)
    length = max(fine.shape)
    thinnest, thickest = (share * length for share in framing.strokes or (0.0, 1.0))
    width = stroke_width(fine)
    if width < thinnest:
        reach = math.ceil((thinnest - width) / 2)
        padded = numpy.pad(fine, reach)
        return disk_dilation(padded / max(float(padded.max()), 1e-6), (thinnest - width) / 2)
    if width > thickest:
        thinned = 1 - disk_dilation(1 - numpy.pad(fine, 1), (width - thickest) / 2)
        if thinned.max() >= 0.5:
            return _cropped(thinned)
    return fine


def _cropped(figure: numpy.ndarray) -> numpy.ndarray:
    rows, columns = (numpy.flatnonzero((figure >= 0.3).any(axis=axis)) for axis in (1, 0))
    return figure[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _fit(figure: numpy.ndarray, size: tuple[int, int], fill: float) -> numpy.ndarray:
    from PIL import Image

    scale = min(fill * frame / length for frame, length in zip(size, figure.shape, strict=True))
    height, width = (max(1, round(scale * length)) for length in figure.shape)
    # Pillow widens the filter by the scale, so that every pixel of the original counts.
    scaled = Image.fromarray(figure).resize((width, height), Image.Resampling.BICUBIC)
    return numpy.asarray(scaled).clip(0, 1)


def _place(figure: numpy.ndarray, size: tuple[int, int], by_mass: bool) -> numpy.ndarray:
    frame = numpy.zeros(size, numpy.float32)
    place = []
    for axis, (length, room) in enumerate(zip(figure.shape, size, strict=True)):
        if by_mass:
            mass = figure.sum(axis=1 - axis)
            center = float(mass @ numpy.arange(length)) / float(mass.sum())
            start = math.ceil(room / 2 - center - 0.5)  # to the nearest pixel; of two equally near, the first
        else:
            start = (room - length) // 2
        start = min(max(start, 0), room - length)  # nothing is cut off
        place.append(slice(start, start + length))
    frame[tuple(place)] = figure
    return frame
