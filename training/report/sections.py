"""Make the sections of a report: each is a list of elements, empty where there is nothing to show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from xml.etree.ElementTree import Element

import numpy

from training.files import clipped, json_text
from training.loop.evaluation import Evaluation, Predictions
from training.report.charts import Series, chart, number
from training.report.findings import Findings, Numbers, real
from training.report.markup import Content, element, table

PART_NAMES = {"train": "training", "val": "validation", "test": "test"}

_LONGEST, _MOST = 300, 1000
"""The most characters of a value in a table of the configuration, and its most rows."""


def summary(found: Findings) -> list[Element]:
    """Show in a few boxes what the run came to."""
    facts: list[tuple[str, Content]] = []
    if found.network is not None:
        facts.append(("model", type(found.network).__name__))
        facts.append(("parameters", f"{sum(array.size for array in found.network.params.values()):,}"))
    data = found.settings.get("data") or found.settings.get("dataset")
    if isinstance(data, str):
        facts.append(("data", data.rstrip("/").rpartition("/")[2] or data))
    epochs = found.settings.get("epochs")
    ended = "" if found.has_ended else ", interrupted or under way"
    facts.append(("epochs", f"{len(found.metrics):,}{f' of {clipped(epochs)}' if epochs else ''}{ended}"))
    best = best_epoch(found)
    if best is not None:
        name = PART_NAMES[found.evaluated]
        accuracy = real(best.get(f"{found.evaluated}_accuracy"))
        if math.isfinite(accuracy):
            facts.append((f"best {name} accuracy", f"{100 * accuracy:.2f} %, epoch {clipped(best.get('epoch'))}"))
        else:
            loss = number(real(best.get(f"{found.evaluated}_loss")))
            facts.append((f"best {name} loss", f"{loss}, epoch {clipped(best.get('epoch'))}"))
    part = PART_NAMES.get(found.part)
    if isinstance(found.answers, (Predictions, Evaluation)):
        facts.append((f"{part} accuracy", f"{100 * found.answers.accuracy:.2f} %"))
    elif found.answers is not None:
        facts.append((f"{part} loss", number(found.answers.loss)))
        facts.append((f"{part} mean absolute error", number(found.answers.mae)))
        facts.append((f"{part} R²", number(found.answers.r2)))
    if found.part != "test" or found.answers is None:
        facts += [(f"{said}, when the run ended", text) for said, text in _recorded(found)]
    seconds = sum(value for _, value in found.curve("seconds") if math.isfinite(value))
    if seconds:
        facts.append(("time", f"{seconds:,.1f} s"))
    return [element("dl", [element("div", element("dt", name), element("dd", value)) for name, value in facts],
                    class_="facts")]  # fmt: skip


def _recorded(found: Findings) -> Iterator[tuple[str, str]]:
    """Yield the results on the test data that the run itself has recorded."""
    known = found.config.get("results")
    names = {"test_accuracy": "accuracy", "test_loss": "loss", "mae": "mean absolute error", "r2": "R²"}
    for name, title in names.items():
        value = real(known.get(name)) if isinstance(known, dict) else math.nan
        if math.isfinite(value):
            yield f"test {title}", f"{100 * value:.2f} %" if name == "test_accuracy" else number(value)


def missing(found: Findings) -> list[Element]:
    """Say what the report lacks, and why."""
    return [element("p", text, class_="missing") for text in found.missing]


def curves(found: Findings) -> list[Element]:
    """Draw loss, accuracy and other numbers over the epochs."""
    if not found.metrics:
        return []
    part, best = found.evaluated, best_epoch(found) or {}
    name = PART_NAMES[part]

    def both(title: str, key: str, factor: float = 1.0) -> Element | None:
        train, shown = ([(x, factor * y) for x, y in found.curve(each)] for each in (key, f"{part}_{key}"))
        if not any(math.isfinite(y) for _, y in train + shown):
            return None
        mark = (real(best.get("epoch")), factor * real(best.get(f"{part}_{key}")))
        series = [Series("training", "train", train), Series(name, "shown", shown)]
        return chart(f"{title} by epoch", series, "epoch", title, whole_x=True, zero=key == "loss", best=mark)

    charts = [both("loss", "loss"), both("accuracy in %", "accuracy", 100.0), *_further(found)]
    rate = found.curve("lr")
    if any(math.isfinite(y) for _, y in rate):
        series = [Series("learning rate", "third", rate)]
        charts.append(chart("learning rate at the end of each epoch", series, "epoch", "learning rate", whole_x=True))
    note = "The ring is the best epoch, whose model was kept." if best else None
    drawn = [element("figure", each) for each in charts if each is not None]
    return [element("div", drawn, class_="grid"), element("p", note, class_="quiet")]


def search(found: Findings) -> list[Element]:
    """Draw the losses of a search for a learning rate."""
    rates, points = found.search.get("rates"), []
    for name, kind in (("losses", "train"), ("smoothed", "shown")):
        values = found.search.get(name)
        if isinstance(rates, list) and isinstance(values, list):
            pairs = [(real(rate), real(loss)) for rate, loss in zip(rates, values, strict=False)]
            points.append(Series("a step" if kind == "train" else name, kind, pairs, is_curve=kind == "shown"))
    if not points:
        return []
    rate = real(found.search.get("suggestion"))
    said = f"The loss falls fastest at {number(rate)}." if math.isfinite(rate) else "The loss did not fall."
    drawn = chart("loss by learning rate", points, "learning rate", "loss", logs=(True, False))
    return [element("div", element("figure", drawn), class_="grid"), element("p", said, class_="quiet")]


def _further(found: Findings) -> Iterator[Element]:
    """Draw the metrics that the trainer was asked for and that are single numbers."""
    records = [record.get("metrics") for record in found.metrics]
    names = {name: None for record in records if isinstance(record, dict) for name in record}
    for name in list(names)[:12]:
        values = [real(record.get(name)) if isinstance(record, dict) else math.nan for record in records]
        points = [(x, value) for (x, _), value in zip(found.curve(""), values, strict=True)]
        if any(math.isfinite(value) for value in values):
            title = f"{PART_NAMES[found.evaluated]} {clipped(name)[1:-1]}"
            yield chart(f"{title} by epoch", [Series(title, "shown", points)], "epoch", title, whole_x=True)


def numbers(found: Findings) -> list[Element]:
    """Draw predicted numbers over true ones, and list the largest errors."""
    answers = found.answers
    if not isinstance(answers, Numbers):
        return []
    charts = []
    for place in range(min(answers.true.shape[1], 4)):
        # Evenly chosen: a page with every sample of a large set would be too long.
        chosen = numpy.unique(numpy.linspace(0, len(answers.true) - 1, 1000).astype(int))
        points = list(zip(answers.true[chosen, place].tolist(), answers.predicted[chosen, place].tolist(), strict=True))
        title = "predicted over true" + (f", number {place}" if answers.true.shape[1] > 1 else "")
        charts.append(chart(title, [Series("", "shown", points, is_curve=False)], "true", title, diagonal=True))
    errors = numpy.abs(answers.predicted - answers.true)
    worst = numpy.argsort(-errors.max(axis=1), kind="stable")[:20]
    rows = [
        (f"{index:,}", _row(answers.true[index]), _row(answers.predicted[index]), number(errors[index].max()))
        for index in worst
    ]
    return [
        element("div", [element("figure", each) for each in charts], class_="grid"),
        element("h3", "Largest errors"),
        table(("sample", "true", "predicted", "error"), rows),
    ]


def _row(values: numpy.ndarray) -> str:
    shown = ", ".join(number(float(value)) for value in values[:6])
    return f"{shown}, …" if len(values) > 6 else shown


def configuration(found: Findings) -> list[Element]:
    """List the settings and the model's description."""
    pairs = [*_flat("", found.settings), *_flat("model", found.config.get("model", {}))]
    samples = found.config.get("samples", {})
    rows = [*pairs, *_flat("samples", samples)][:_MOST]
    return [table(("setting", "value"), rows, words=2)] if pairs else []


def environment(found: Findings) -> list[Element]:
    """List the machine and the versions."""
    others = ("settings", "model", "samples", "results")
    shown = {name: value for name, value in found.config.items() if name not in others}
    return [table(("what", "value"), islice(_flat("", shown), _MOST), words=2)] if shown else []


def layers(found: Findings) -> list[Element]:
    """List the layers with their outputs and parameters."""
    if found.network is None:
        return []
    return [table(("layer", "parameters"), [(name, f"{size:,}") for name, size in _layers(found)])]


def _layers(found: Findings) -> Iterator[tuple[str, int]]:
    assert found.network is not None
    for path, _, layer in found.network.leaves():
        yield f"{path}: {layer}", sum(array.size for array in layer.params.values())


def best_epoch(found: Findings) -> dict[str, Any] | None:
    """Return the record of the epoch whose model was kept: the last that was the best so far."""
    return next((record for record in reversed(found.metrics) if record.get("best") is True), None)


def _flat(prefix: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield nested objects as dotted names with their values."""
    if isinstance(value, Mapping) and depth < 3:
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner, depth + 1)
        return
    text = "none" if value is None else value if isinstance(value, str) else json_text.dump(value)
    yield prefix, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
