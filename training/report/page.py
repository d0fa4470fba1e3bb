"""Put the sections of a report together."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from training.report import classes, sections
from training.report.findings import Findings
from training.report.markup import document, element
from training.report.roofline import roofline
from training.report.style import STYLE


def render(found: Findings) -> str:
    """Return the report of a run as an HTML page."""
    name = found.folder.path.resolve().name
    part = sections.PART_NAMES.get(found.part, "")
    body: list[Element] = [
        element("h1", f"Run {name}"),
        *sections.summary(found),
        *sections.missing(found),
    ]
    for title, content in (
        ("Learning curves", sections.curves(found)),
        ("Search for a learning rate", sections.search(found)),
        (f"Confusion matrix of the {part} data", classes.confusion(found)),
        (f"Classes of the {part} data", classes.per_class(found)),
        (f"Predictions of the {part} data", sections.numbers(found)),
        (f"Worst mistakes of the {part} data", classes.mistakes(found)),
        ("Filters of the first layer", classes.filters(found)),
        ("Profile of a training step", roofline(found)),
        ("Layers", sections.layers(found)),
        ("Configuration", sections.configuration(found)),
        ("Environment", sections.environment(found)),
    ):
        if content:
            body.append(element("section", element("h2", title), content))
    return document(f"{name}: xpnet report", STYLE, body)
