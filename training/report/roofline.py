"""Make the section of a report about a profile: its roofline chart, and the rows of layers and phases."""

from __future__ import annotations

import math
from typing import Any
from xml.etree.ElementTree import Element

from training.report.charts import Series, chart, number
from training.report.findings import Findings, real
from training.report.markup import element, table

_COLORS = {"forward": "train", "backward": "shown", "update": "third"}


def roofline(found: Findings) -> list[Element]:
    """Draw operations a second over operations a byte for each layer and phase, under what the device can do."""
    given = found.profile.get("rows")
    rows = [row for row in given if isinstance(row, dict)] if isinstance(given, list) else []
    if not rows:
        return []
    roof = found.profile.get("roof")
    roof = roof if isinstance(roof, dict) else {}
    top, slope = real(roof.get("flops")), real(roof.get("bandwidth"))
    series, places = [], []
    for phase, color in _COLORS.items():
        points = [(_place(row), str(row.get("layer"))) for row in rows if row.get("phase") == phase]
        shown = [(place, name) for place, name in points if all(math.isfinite(value) and value > 0 for value in place)]
        places += [place for place, _ in shown]
        if shown:
            names = tuple(f"{name}, {phase}" for _, name in shown)
            series.append(Series(phase, color, [place for place, _ in shown], is_curve=False, names=names))
    content = []
    if series:
        lowest, highest = (pick(x for x, _ in places) for pick in (min, max))
        title = "GFLOP/s by FLOP/byte"
        line = _roof(lowest, highest, top, slope)
        drawn = chart(title, series, "FLOP/byte", "GFLOP/s", logs=(True, True), roof=line)
        content.append(element("div", element("figure", drawn), class_="grid"))
    if math.isfinite(top) and math.isfinite(slope):
        said = f"The roof: {number(top / 1e9)} GFLOP/s and {number(slope / 1e9)} GB/s, {roof.get('source', '')}."
        content.append(element("p", said, class_="quiet"))
    total = sum(seconds for row in rows if math.isfinite(seconds := real(row.get("seconds"))))
    about = [f"{name} {found.profile[name]}" for name in ("model", "batch", "precision", "device", "threads", "steps")
             if isinstance(found.profile.get(name), (str, int))]  # fmt: skip
    content.append(element("p", f"{', '.join(about)}: {number(1e3 * total)} ms a step.", class_="quiet"))
    head = ("layer", "phase", "ms", "share", "GFLOP/s", "FLOP/byte", "of the roof")
    content.append(table(head, [_line(row, total, top, slope) for row in rows], words=2))
    return content


def _place(row: dict[str, Any]) -> tuple[float, float]:
    """Return FLOP/byte and GFLOP/s; NaN where they are not known."""
    flops, nbytes, seconds = (real(row.get(name)) for name in ("flops", "bytes", "seconds"))
    return (flops / nbytes if nbytes > 0 else math.nan), (1e-9 * flops / seconds if seconds > 0 else math.nan)


def _roof(lowest: float, highest: float, top: float, slope: float) -> list[tuple[float, float]]:
    """Return the corners of the roof over the intensities of the points and its ridge, in GFLOP/s."""
    if not (top > 0 and slope > 0 and math.isfinite(top) and math.isfinite(slope)):
        return []
    ridge = top / slope
    ends = (min(lowest, ridge) / 2, ridge, max(highest, ridge) * 2)
    return [(x, 1e-9 * min(top, slope * x)) for x in ends]


def _line(row: dict[str, Any], total: float, top: float, slope: float) -> tuple[str, ...]:
    intensity, rate = _place(row)
    seconds = real(row.get("seconds"))
    share = 1e9 * rate / min(top, slope * intensity) if intensity > 0 and math.isfinite(top + slope) else math.nan
    return (
        str(row.get("layer", "")),
        str(row.get("phase", "")),
        *(_or_none(value, 1e3) for value in (seconds,)),
        f"{100 * seconds / total:.1f} %" if total else "-",
        _or_none(rate),
        _or_none(intensity),
        f"{100 * share:.0f} %" if math.isfinite(share) else "-",
    )


def _or_none(value: float, factor: float = 1.0) -> str:
    return number(factor * value) if math.isfinite(value) else "-"
