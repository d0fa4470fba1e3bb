"""Find the one figure of a picture: the strokes that belong to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from training.data.pictures.components import Component, find_components
from training.data.pictures.errors import ImageError
from training.data.pictures.framing import stroke_width
from training.data.pictures.ink import STROKE, Ink, find_inks, misfit
from training.data.pictures.morphology import largest

_SPECK = 0.2
"""A component shorter than this share of the largest stroke's length is a speck, unless its mass reaches ``_HEAVY``."""

_HEAVY = 0.15
"""Share of the largest stroke's mass."""

_CUT = 0.3
"""A component that touches the picture's border belongs to the figure only from this share of the largest stroke's mass
on."""

_NEAR = 0.3
"""Strokes belong to one figure if the gap between them is at most this share of the larger one's length."""

_PIECES = 5
"""The most separate strokes that a figure has."""

_WIDEST = 1.6
"""A figure of several strokes whose width is more than this many heights is several figures side by side."""


@dataclass(frozen=True)
class Figure:
    """A figure that was cut out of a picture.

    Attributes:
        ink: float32 (h, w), the amount of ink in 0 … 1; 0 around the strokes.
        findings: reasons to doubt that this is one whole figure, as texts.
        is_alone: True if the rest of the picture is evenly lit paper, and nothing heavy along its edge was left out.
        misfit: a measure that is larger the less it looks like strokes: its outline lies where the picture has no edge,
            or it is broad.
        box: top, left, bottom and right in the picture; bottom and right are exclusive.
    """

    ink: numpy.ndarray
    findings: tuple[str, ...]
    is_alone: bool
    misfit: float
    box: tuple[int, int, int, int]


def find_figure(gray: numpy.ndarray) -> Figure:
    """Cut out the figure that is drawn in a picture (H, W), without specks, rules and shadows.

    Raises:
        ImageError: nothing stands out from the background.
    """
    # On evenly lit paper strokes may have any width; with light and shadow only narrow structures are strokes.
    even = _likeliest(find_inks(gray, 2 * max(gray.shape)))
    if even is not None and even.is_alone and not even.findings:
        return even
    figures = [figure for figure in (_likeliest(find_inks(gray, STROKE * min(gray.shape))), even) if figure is not None]
    if not figures:
        raise ImageError("a blank image: nothing stands out from its background")
    return min(figures, key=lambda figure: len(figure.findings))


def _likeliest(inks: tuple[Ink, Ink]) -> Figure | None:
    """Return the figure of the one of two inks that looks more like strokes; None if neither shows a figure."""
    dark, bright = (_cut_out(ink) for ink in inks)
    if dark is None or bright is None:
        return dark or bright
    return dark if dark.misfit <= bright.misfit else bright


def _cut_out(ink: Ink) -> Figure | None:
    """Return the figure that some ink shows; None if there is none."""
    if not ink.found:
        return None
    labels, components = find_components(ink.mask, ink.share)
    if not components:
        return None
    corners = {int(labels[row, column]) for row in (0, -1) for column in (0, -1)}
    edges = [each for each in components if each.label in corners or _is_edge(each, ink.amount.shape)]
    kept, findings = _choose(components, edges, ink.amount.shape)
    mask = numpy.isin(labels, [component.label for component in kept])
    # The soft edges of the kept strokes lie below the level; those of other components are left out.
    soft = numpy.where(largest(mask, 5) & ((labels == 0) | mask), ink.amount, 0)
    full = float(numpy.median(ink.amount[mask & (ink.amount >= numpy.median(ink.amount[mask]))]))
    top, left = (min(getattr(each, side) for each in kept) for side in ("top", "left"))
    bottom, right = (max(getattr(each, side) for each in kept) for side in ("bottom", "right"))
    strokes = (soft[top:bottom, left:right] / full).clip(0, 1).astype(numpy.float32)
    alone = ink.is_even and not any(each.mass >= 0.02 * max(other.mass for other in kept) for each in edges)
    return Figure(
        strokes, tuple(findings), alone, misfit(mask, ink.steps) + _breadth(strokes), (top, left, bottom, right)
    )


def _breadth(strokes: numpy.ndarray) -> float:
    """Return the width of strokes as a share of the figure's length, at most 0.5. The paper between strokes is broader
    than the strokes."""
    return min(stroke_width(strokes) / max(strokes.shape), 0.5)


def _choose(
    components: list[Component], edges: list[Component], shape: tuple[int, ...]
) -> tuple[list[Component], list[str]]:
    """Return the strokes of the figure, and reasons to doubt it."""
    findings = []
    inside = [each for each in components if each not in edges]
    if not inside:
        inside = components
        findings.append("the figure runs over the picture's edge")
    main = max(inside, key=lambda each: each.mass)
    strokes = [
        each
        for each in inside
        if (_sides(each, shape) == 0 or each.mass >= _CUT * main.mass)
        and ((each.length >= _SPECK * main.length and each.mass >= 0.02 * main.mass) or each.mass >= _HEAVY * main.mass)
    ]
    kept, more = [main], [main]
    while more:
        near = [
            each
            for each in strokes
            if each not in kept and any(each.gap(other) <= _NEAR * main.length for other in kept)
        ]
        kept, more = kept + near, near
    far = [each for each in strokes if each not in kept and each.mass >= _HEAVY * main.mass]
    height = max(each.bottom for each in kept) - min(each.top for each in kept)
    width = max(each.right for each in kept) - min(each.left for each in kept)
    if far or len(kept) > _PIECES or (len(kept) > 1 and width > _WIDEST * height):
        findings.append("several figures")
    return kept, findings


def _is_edge(component: Component, shape: tuple[int, ...]) -> bool:
    """Return whether a component is the edge of the sheet, a shadow or a finger: it touches two opposite or adjacent
    sides and runs along one of them."""
    height, width = shape
    touched = _sides(component, shape)
    along = component.width >= 0.8 * width or component.height >= 0.8 * height
    return (touched >= 2 and along) or touched >= 3


def _sides(component: Component, shape: tuple[int, ...]) -> int:
    """Return the number of sides of the picture that a component touches."""
    height, width = shape
    return (component.top == 0) + (component.left == 0) + (component.bottom == height) + (component.right == width)
