"""Make the sections of a report about classes: confusion matrix, each class, worst mistakes, and filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy

from backend import asnumpy
from training.loop import figures
from training.loop.evaluation import Evaluation, Predictions
from training.report.findings import Findings
from training.report.markup import element, picture, scrolled, table

MOST_CELLS = 25
"""The most classes whose confusion matrix is a table with numbers; that of more is a picture."""

_MISTAKES, _SIDE, _FILTERS = 28, 128, 256
_BLUE, _RED = (49, 120, 200), (200, 60, 50)


def confusion(found: Findings) -> list[Element]:
    """Show the confusion matrix, and the pairs of classes that are confused most."""
    if not isinstance(found.answers, Predictions) or found.data is None:
        return []
    matrix, classes = found.answers.confusion(), found.data.classes
    shares = matrix / numpy.maximum(matrix.sum(axis=1, keepdims=True), 1)
    if len(classes) <= MOST_CELLS:
        shown = _matrix(matrix, shares, classes)
    else:
        text = "confusion matrix: a row for each class, a column for each predicted class"
        shown = element("figure", picture(_tinted(numpy.sqrt(shares)), text), class_="wide")
    return [
        element("p", "Rows are the true classes, columns the predicted ones.", class_="quiet"),
        shown,
        *_pairs(matrix, shares, classes),
    ]


def _matrix(matrix: numpy.ndarray, shares: numpy.ndarray, classes: Sequence[str]) -> Element:
    kind = "upright" if max(map(len, classes)) > 3 else "number"
    head = element("tr", element("th"), [element("th", name, class_=kind, title=name) for name in classes])
    rows = [
        element(
            "tr",
            element("th", name, title=name),
            [
                # The root makes an error rate of one in a hundred visible; text is legible over at most 0.6.
                element("td", f"{count:,}" if count else "", style=f"--share: {0.6 * math.sqrt(share):.3f}")
                for count, share in zip(matrix[label], shares[label], strict=True)
            ],
        )
        for label, name in enumerate(classes)
    ]
    return scrolled(element("table", element("thead", head), element("tbody", rows), class_="confusion"))


def _pairs(matrix: numpy.ndarray, shares: numpy.ndarray, classes: Sequence[str]) -> list[Element]:
    wrong = matrix.copy()
    numpy.fill_diagonal(wrong, 0)
    order = [divmod(int(place), len(classes)) for place in numpy.argsort(-wrong, axis=None, kind="stable")[:10]]
    rows = [
        (classes[row], classes[column], f"{wrong[row, column]:,}", f"{100 * shares[row, column]:.1f} %")
        for row, column in order
        if wrong[row, column]
    ]
    if not rows:
        return []
    return [
        element("h3", "Confused most"),
        table(("true", "predicted", "samples", "of the class"), rows, words=2),
    ]


def per_class(found: Findings) -> list[Element]:
    """List precision, recall and F1 of each class or label."""
    if isinstance(found.answers, Evaluation) and found.data is not None:
        scores = found.answers.metrics["per-class"]
        columns = zip(found.data.classes, found.data.counts(found.part), *scores.values(), strict=True)
        lines = [(name, f"{count:,}", *(_percent(share, 1) for share in shares)) for name, count, *shares in columns]
        return [table(("label", "samples", "precision", "recall", "F1"), lines)]
    if not isinstance(found.answers, Predictions) or found.data is None:
        return []
    matrix = found.answers.confusion()
    right, decided, there = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    rows = [
        (
            name,
            f"{there[label]:,}",
            f"{right[label]:,}",
            _percent(right[label], decided[label]),
            _percent(right[label], there[label]),
            _percent(2 * right[label], decided[label] + there[label]),
        )
        for label, name in enumerate(found.data.classes)
    ]
    return [table(("class", "samples", "right", "precision", "recall", "F1"), rows)]


def _percent(part: float, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole and part == part else "-"


def mistakes(found: Findings) -> list[Element]:
    """Show the misclassified samples with the least probability of the true class: as pictures, if they are images."""
    answers, data = found.answers, found.data
    if not isinstance(answers, Predictions) or data is None:
        return []
    worst = answers.worst_mistakes(_MISTAKES)
    if not len(worst):
        return [element("p", f"All {len(answers.labels):,} samples are right.")]
    wrong = len(answers.labels) - answers.correct
    said = f"{len(worst):,} of {wrong:,} mistakes, the least probability of the true class first."
    lines = [
        (
            f"{index:,}",
            data.classes[answers.predicted[index]],
            f"{100 * float(answers.probabilities[index, answers.predicted[index]]):.0f} %",
            data.classes[answers.labels[index]],
        )
        for index in worst
    ]
    if len(data.shape) != 3 or data.shape[0] not in (1, 3):
        rows = [(sample, predicted, true, share) for sample, predicted, share, true in lines]
        return [element("p", said, class_="quiet"), table(("sample", "predicted", "true", "probability"), rows, 3)]
    inputs = data.parts[found.part].inputs
    shown = [
        element(
            "figure",
            picture(_pixels(inputs[int(index)]), f"sample {sample}, {true} taken for {predicted}"),
            element("figcaption", element("span", f"{predicted} ({share})", class_="answer"), f", is {true}"),
        )
        for index, (sample, predicted, share, true) in zip(worst, lines, strict=True)
    ]
    return [element("p", said, class_="quiet"), element("div", shown, class_="pictures")]


def filters(found: Findings) -> list[Element]:
    """Show the first layer's weights as pictures: red is positive, blue negative."""
    if found.network is None:
        return []
    known = (found.network.config or {}).get("input_dim", found.network.input_dim)
    shape = tuple(known) if found.data is None else found.data.shape
    weights = asnumpy(next(iter(found.network.params.values()), numpy.zeros(0))).astype("float32")
    is_image = len(shape) == 3 and (weights.ndim == 4 or (weights.ndim == 2 and len(weights) == math.prod(shape)))
    if not is_image or not weights.size:
        return []
    tiles = figures.filter_images(weights, shape)[:_FILTERS]
    height, width = tiles.shape[1:]
    zoom = math.ceil(24 / max(height, width))
    columns = max(1, min(len(tiles), round(math.sqrt(2 * len(tiles)))))
    sheet = figures.mosaic(tiles.repeat(zoom, axis=1).repeat(zoom, axis=2), columns)
    scaled = numpy.nan_to_num(sheet / (float(numpy.nanmax(numpy.abs(sheet))) or 1.0))
    text = f"{len(tiles)} filters of {height}x{width}"
    caption = element("figcaption", f"{text}; red is positive, blue negative, all on one scale.")
    return [element("figure", picture(_tinted(scaled), text), caption, class_="wide")]


def _tinted(values: numpy.ndarray) -> numpy.ndarray:
    """Return pixels for values from -1 to 1, blue or red and the more opaque the farther from 0: on any background."""
    red = numpy.asarray(_RED, "uint8")
    pixels = numpy.where((values > 0)[..., None], red, numpy.asarray(_BLUE, "uint8"))
    opacity = numpy.rint(255 * numpy.abs(values).clip(0, 1)).astype("uint8")
    return numpy.concatenate([pixels, opacity[..., None]], axis=-1)


def _pixels(image: numpy.ndarray) -> numpy.ndarray:
    """Return an image (C, H, W), uint8 or floating in 0 … 1, as uint8 pixels of at most 128 on a side."""
    if image.dtype != numpy.uint8:
        image = numpy.rint(255 * numpy.nan_to_num(image).clip(0, 1)).astype("uint8")
    step = math.ceil(max(image.shape[1:]) / _SIDE)
    pixels = image[:, ::step, ::step].transpose(1, 2, 0)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
