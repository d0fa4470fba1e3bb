"""Predict the rows of tables: classes with their probabilities, or numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy

from backend import asarray, asnumpy
from training.cli.common import user_errors
from training.data.formats.tables import ENDINGS, read_features
from training.data.normalization import Normalization
from training.files import json_text
from training.files.printable import printable
from training.loop.non_finite import in_parameters
from training.loop.recipe import normalization_of, target_normalization_of
from training.loop.settings import EVALUATION_BATCH
from training.models import Network


def is_table(path: Path) -> bool:
    """Return True if a name is that of a table of rows to predict."""
    return path.suffix.lower() in ENDINGS


@dataclass(frozen=True)
class Row:
    """The prediction of one row of a table.

    Attributes:
        table: the file.
        row: counted from 1, the line of names left out.
        ranking: classes with their probabilities, the likeliest first, or all labels; empty for numbers.
        numbers: those predicted, in the target's own units; empty where classes are.
        targets: the names of several numbers; empty if they are not known.
    """

    table: Path
    row: int
    ranking: Sequence[tuple[str, float]]
    numbers: Sequence[float]
    has_labels: bool = False
    targets: Sequence[str] = ()


class RowPredictor:
    """Maps the rows of a table to predictions, a batch at a time.

    Args:
        network: takes rows (N, D), or images as such rows.
        top: how many classes to name.

    Raises:
        ValueError: the network takes images, or its file's description is damaged; of a call, the table does not fit
            the network or is damaged, or the network's scores are not finite.
    """

    def __init__(self, network: Network, top: int = 1) -> None:
        if found := in_parameters(network):
            raise ValueError(f"the model cannot predict: {found}")
        config = network.config or {}
        shape = tuple(config.get("input_dim", network.input_dim))
        if len(shape) != 1:
            raise ValueError(f"the model takes images {shape}; rows of a table are for models that take (features,)")
        self._features, self._columns = shape[0], config.get("columns", ())
        self._normalization, self._target = normalization_of(network), target_normalization_of(network)
        self._network, self._top = network, top
        self._kind = network.last_layer.target_kind
        self._names = config.get("classes") or [str(label) for label in range(network.classes)]
        self._targets = targets_of(network)

    def __call__(self, file: Path) -> Iterator[Row]:
        """Yield the predictions of a table's rows, after all of it has been read."""
        features = read_features(file, self._columns, self._features)
        for first in range(0, len(features), EVALUATION_BATCH):
            predicted = self._predicted(features[first : first + EVALUATION_BATCH])
            if not numpy.isfinite(predicted).all():
                row = first + 1 + int(numpy.argwhere(~numpy.isfinite(predicted))[0, 0])
                raise ValueError(f"{printable(file)}: the model's scores of row {row} are not finite: they overflow")
            for row, numbers in enumerate(predicted.tolist(), first + 1):
                if self._kind == "values":
                    yield Row(file, row, (), numbers, targets=self._targets)
                else:
                    yield Row(file, row, self._ranked(numbers), (), self._kind == "labels")

    def _predicted(self, features: numpy.ndarray) -> numpy.ndarray:
        """Return the predictions of rows, float64 (N, outputs): probabilities, or numbers in their own units."""
        x = features if self._normalization is None else self._normalization.apply(features)
        scores = self._network.predict(asarray(x.astype(self._network.params.flat.dtype)))
        return in_units(asnumpy(self._network.last_layer.predictions(scores)).astype("float64"), self._target)

    def _ranked(self, probabilities: list[float]) -> list[tuple[str, float]]:
        if self._kind == "labels":
            return list(zip(self._names, probabilities, strict=True))
        order = numpy.argsort(numpy.negative(probabilities), kind="stable")[: self._top]
        return [(self._names[label], probabilities[label]) for label in order]


def print_rows(predict: RowPredictor, tables: Sequence[Path], form: str) -> None:
    """Print the predictions of tables as "text", "json" or "csv".

    Raises:
        UserError: a table does not fit the network or is damaged.
    """
    table = csv.writer(_Echo(), lineterminator="\n")
    has_head = False
    for file in tables:
        with user_errors():
            rows = list(predict(file))
        for row in rows:
            if form == "json":
                click.echo(json_text.dump(_record(row)))
            elif form == "csv":
                named = _named(row)
                if not has_head:
                    table.writerow(["table", "row", *named])
                has_head = True
                table.writerow([printable(row.table), row.row, *named.values()])
            else:
                click.echo(f"{printable(row.table)}, row {row.row}: {_in_words(row)}")


class _Echo:
    """A file that writes to standard output as ``click.echo`` does."""

    def write(self, text: str) -> None:
        click.echo(text, nl=False)


def labels_in_words(ranking: Sequence[tuple[str, float]]) -> str:
    """Return the labels that are likelier than not, the likeliest first, with their probabilities."""
    likely = sorted((each for each in ranking if each[1] > 0.5), key=lambda each: -each[1])
    return "   ".join(f"{printable(label)} {100 * probability:.2f} %" for label, probability in likely) or "no label"


def record_of_labels(ranking: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Return labels as JSON has them: the names of those that are likelier than not, and all probabilities."""
    return {"labels": [name for name, probability in ranking if probability > 0.5], "probabilities": dict(ranking)}


def targets_of(network: Network) -> Sequence[str]:
    """Return the names of the numbers that a network predicts, if they are several and known; else nothing."""
    targets = str((network.config or {}).get("target", "")).split(",")
    return targets if len(targets) == network.classes > 1 else ()


def in_units(predicted: numpy.ndarray, known: Normalization | None) -> numpy.ndarray:
    """Return predictions (N, outputs) in the units of their targets, which had that normalization."""
    return predicted if known is None else predicted * known.std + known.mean


def numbers_in_words(numbers: Sequence[float], targets: Sequence[str]) -> str:
    """Return the numbers predicted of one sample, with the names of several where they are known."""
    named = zip(targets, numbers, strict=True) if targets else (("", number) for number in numbers)
    return "   ".join(f"{printable(name)} {number:.6g}".lstrip() for name, number in named)


def record_of_numbers(numbers: Sequence[float], targets: Sequence[str]) -> dict[str, Any]:
    """Return the numbers predicted of one sample as JSON has them."""
    if targets:
        return {"predicted": dict(zip(targets, numbers, strict=True))}
    return {"predicted": numbers[0] if len(numbers) == 1 else list(numbers)}


def cells_of_numbers(numbers: Sequence[float], targets: Sequence[str]) -> dict[str, str]:
    """Return the numbers predicted of one sample by the names of their columns."""
    several = len(numbers) > 1
    names = targets or [f"predicted{place if several else ''}" for place in range(1, len(numbers) + 1)]
    return {printable(name): f"{number:.6g}" for name, number in zip(names, numbers, strict=True)}


def _in_words(row: Row) -> str:
    if row.has_labels:
        return labels_in_words(row.ranking)
    shares = [f"{printable(label)} {100 * probability:.2f} %" for label, probability in row.ranking]
    return "   ".join(shares) or numbers_in_words(row.numbers, row.targets)


def _record(row: Row) -> dict[str, Any]:
    place = {"table": click.format_filename(row.table), "row": row.row}
    if row.has_labels:
        return {**place, **record_of_labels(row.ranking)}
    if not row.ranking:
        return {**place, **record_of_numbers(row.numbers, row.targets)}
    top = [{"class": label, "probability": probability} for label, probability in row.ranking]
    return {**place, **top[0], "top": top}


def _named(row: Row) -> dict[str, str]:
    """Return the predictions of a row by the names of their columns."""
    if row.has_labels:
        return {printable(label): f"{probability:.6g}" for label, probability in row.ranking}
    cells = cells_of_numbers(row.numbers, row.targets)
    for place, (label, probability) in enumerate(row.ranking, 1):
        more = "" if place == 1 else str(place)
        cells |= {f"class{more}": printable(label), f"probability{more}": f"{probability:.6g}"}
    return cells
