"""Find a garment on a plain background, as in the photographs of a shop."""

from __future__ import annotations

import numpy

from training.data.pictures.components import find_components
from training.data.pictures.errors import ImageError
from training.data.pictures.figure import Figure

_CONTENT = 0.25
"""From this share of the full contrast on, a pixel belongs to the garment."""

_SPECK = 0.05
"""A piece with less than this share of the largest one's area is a speck."""

LEAST_CONTRAST = 0.1
"""A picture with less contrast is blank."""


def find_garment(gray: numpy.ndarray) -> Figure:
    """Cut out what stands out from the background, whose brightness is that of most of the border.

    Args:
        gray: float32 (H, W) in 0 … 1.

    Raises:
        ImageError: nothing stands out.
    """
    if float(gray.max() - gray.min()) < LEAST_CONTRAST:
        raise ImageError("a blank image: nothing stands out from its background")
    border = numpy.concatenate((gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]))
    if float(numpy.median(border)) > (float(gray.min()) + float(gray.max())) / 2:
        gray, border = 1 - gray, 1 - border
    ground = float(numpy.median(border))
    garment = ((gray - ground) / max(float(gray.max()) - ground, 1e-6)).clip(0, 1).astype(numpy.float32)
    labels, pieces = find_components(garment >= _CONTENT, garment)
    if not pieces:
        raise ImageError("a blank image: nothing stands out from its background")
    largest = max(piece.area for piece in pieces)
    kept = [piece for piece in pieces if piece.area >= _SPECK * largest]
    top, left = (min(getattr(piece, side) for piece in kept) for side in ("top", "left"))
    bottom, right = (max(getattr(piece, side) for piece in kept) for side in ("bottom", "right"))
    specks = [piece.label for piece in pieces if piece.area < _SPECK * largest]
    shown = numpy.where(numpy.isin(labels, specks), 0, garment)[top:bottom, left:right]
    touched = (top == 0) + (left == 0) + (bottom == gray.shape[0]) + (right == gray.shape[1])
    findings = ("the figure runs over the picture's edge",) if touched >= 3 else ()
    return Figure(shown, findings, True, 0.0, (top, left, bottom, right))
