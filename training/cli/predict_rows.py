"""Predict the rows of tables: classes with their probabilities, or numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy

from backend import asarray
from training.cli.common import user_errors
from training.cli.prediction import Prediction, Reader
from training.data.formats.tables import ENDINGS, read_features
from training.files import json_text
from training.files.printable import printable
from training.loop.non_finite import in_parameters
from training.loop.recipe import normalization_of
from training.loop.settings import EVALUATION_BATCH
from training.models import Network


def is_table(path: Path) -> bool:
    """Return True if a name is that of a table of rows to predict."""
    return path.suffix.lower() in ENDINGS


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
        self._normalization, self._network, self._reader = normalization_of(network), network, Reader(network, top)

    def __call__(self, file: Path) -> Iterator[tuple[int, Prediction]]:
        """Yield a table's rows, counted from 1 behind the names, with their predictions, after all has been read."""
        features = read_features(file, self._columns, self._features)
        for first in range(0, len(features), EVALUATION_BATCH):
            predicted = self._predicted(features[first : first + EVALUATION_BATCH])
            if not numpy.isfinite(predicted).all():
                row = first + 1 + int(numpy.argwhere(~numpy.isfinite(predicted))[0, 0])
                raise ValueError(f"{printable(file)}: the model's scores of row {row} are not finite: they overflow")
            for row, numbers in enumerate(predicted.tolist(), first + 1):
                yield row, self._reader.read(numbers)

    def _predicted(self, features: numpy.ndarray) -> numpy.ndarray:
        x = features if self._normalization is None else self._normalization.apply(features)
        return self._reader.numbers(self._network.predict(asarray(x.astype(self._network.params.flat.dtype))))


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
        for row, prediction in rows:
            if form == "json":
                place = {"table": click.format_filename(file), "row": row}
                click.echo(json_text.dump({**place, **prediction.record()}))
            elif form == "csv":
                cells = prediction.cells()
                if not has_head:
                    table.writerow(["table", "row", *(name for name, _ in cells)])
                has_head = True
                table.writerow([printable(file), row, *(text for _, text in cells)])
            else:
                click.echo(f"{printable(file)}, row {row}: {prediction.in_words()}")


class _Echo:
    """A file that writes to standard output as ``click.echo`` does."""

    def write(self, text: str) -> None:
        click.echo(text, nl=False)
