"""Draw charts as SVG elements, whose colors are those of the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy

from training.report.markup import element

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 30, 42
MOST_POINTS = 600
"""The most points of a curve; of more, evenly spaced ones are drawn."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one color; those that are not finite are left out.

    Attributes:
        name: in the legend.
        kind: "train", "shown" or "third", which have colors of their own.
        is_curve: joined by a line, which is broken where points are left out.
        names: of the points, all of which are drawn; shown where the pointer rests on one.
    """

    name: str
    kind: str
    points: Points
    is_curve: bool = True
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Axis:
    """A scale from ``low`` to ``high`` on a length of ``first`` to ``last``, in units of the drawing."""

    low: float
    high: float
    first: float
    last: float
    is_log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], first: float, last: float, is_log: bool = False, zero: bool = False) -> Axis:
        """Return an axis that holds all values, with a margin; with ``zero`` it begins at 0 if none is below."""
        low, high = (min(values), max(values)) if values else (1.0, 10.0)
        if is_log:
            return cls(low / 1.3, high * 1.3, first, last, True)
        low = 0.0 if zero and low >= 0 else low
        margin = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
        return cls(low if low == 0 and zero else low - margin, high + margin, first, last)

    def place(self, value: float) -> float:
        """Return where a value lies."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        value = math.log(value) if self.is_log else value
        return self.first + (self.last - self.first) * (value - low) / (high - low)

    def ticks(self, whole: bool = False) -> list[float]:
        """Return about five round numbers; powers of ten on a logarithmic scale."""
        if self.is_log:
            low, high = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            stride = max(1, math.ceil((high - low + 1) / 6))
            decades = [10.0**power for power in range(low, high + 1, stride)]
            return decades if len(decades) > 1 else [self.low * 1.3, self.high / 1.3]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * 0.999)
        step = max(1.0, float(math.ceil(step))) if whole else step
        return [step * n for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str = "",
    *,
    whole_x: bool = False,
    zero: bool = False,
    logs: tuple[bool, bool] = (False, False),
    best: tuple[float, float] | None = None,
    roof: Points = (),
    diagonal: bool = False,
) -> Element:
    """Draw series of points over two axes.

    Args:
        whole_x: numbers on the x-axis are whole.
        zero: the y-axis begins at 0.
        logs: x and y are logarithmic; points that are not positive are left out.
        best: a point to mark.
        roof: corners of a line behind the points.
        diagonal: draw where x equals y, on equal axes.
    """
    finite = [(x, y) for one in (*[one.points for one in series], roof) for x, y in one if _is_drawn(x, y, logs)]
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    if diagonal:
        xs = ys = xs + ys
    across = Axis.over(xs, LEFT, WIDTH - RIGHT, logs[0])
    up = Axis.over(ys, HEIGHT - BOTTOM, TOP, logs[1], zero)
    drawn: list[Element] = [element("title", title), *_axes(across, up, whole_x)]
    drawn += [
        _text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 6, x_label, "middle"),
        _text(LEFT, 14, y_label or title, "start"),
    ]
    if roof or diagonal:
        line = roof or [(across.low, across.low), (across.high, across.high)]
        drawn.append(element("polyline", points=_line(line, across, up), class_="roof"))
    for one in series:
        drawn += _series(one, across, up, logs)
    if best is not None and _is_drawn(*best, logs):
        x, y = across.place(best[0]), up.place(best[1])
        drawn.append(element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=6, class_="best shown"))
    if len(series) > 1 or diagonal:
        drawn += _legend(series)
    return element("svg", drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)


def number(value: float) -> str:
    """Return a number in a few digits."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _is_drawn(x: float, y: float, logs: tuple[bool, bool]) -> bool:
    return all(
        math.isfinite(value) and abs(value) < 1e100 and (value > 0 or not is_log)
        for value, is_log in zip((x, y), logs, strict=True)
    )


def _axes(across: Axis, up: Axis, whole_x: bool) -> list[Element]:
    drawn = []
    for value in up.ticks():
        y = up.place(value)
        drawn.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="axis"))
        drawn.append(_text(LEFT - 6, y + 4, number(value), "end"))
    drawn += [
        _text(across.place(value), HEIGHT - BOTTOM + 17, number(value), "middle") for value in across.ticks(whole_x)
    ]
    return drawn


def _series(one: Series, across: Axis, up: Axis, logs: tuple[bool, bool]) -> list[Element]:
    chosen = list(one.points)
    if len(chosen) > MOST_POINTS:
        chosen = [chosen[int(place)] for place in numpy.linspace(0, len(chosen) - 1, MOST_POINTS)]
    if one.names:
        return [
            element(
                "circle",
                element("title", name),
                cx=f"{across.place(x):.1f}",
                cy=f"{up.place(y):.1f}",
                r=4,
                class_=f"dot {one.kind}",
            )
            for (x, y), name in zip(one.points, one.names, strict=True)
        ]
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in chosen:
        if _is_drawn(x, y, logs):
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    drawn = []
    for piece in pieces:
        if one.is_curve and len(piece) > 1:
            drawn.append(element("polyline", points=_line(piece, across, up), class_=f"curve {one.kind}"))
        if not one.is_curve or len(chosen) < 30:
            drawn += [
                element("circle", cx=f"{across.place(x):.1f}", cy=f"{up.place(y):.1f}", r=3, class_=f"dot {one.kind}")
                for x, y in piece
            ]
    return drawn


def _line(points: Points, across: Axis, up: Axis) -> str:
    return " ".join(f"{across.place(x):.1f},{up.place(y):.1f}" for x, y in points)


def _legend(series: Sequence[Series]) -> list[Element]:
    drawn, right = [], float(WIDTH - RIGHT)
    for one in reversed(series):
        drawn.append(_text(right, 14, f"● {one.name}", "end", one.kind))
        right -= 7 * len(one.name) + 28
    return drawn


def _text(x: float, y: float, text: str, anchor: str, kind: str | None = None) -> Element:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)
