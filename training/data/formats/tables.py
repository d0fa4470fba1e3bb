"""Read tables of features and targets from CSV files."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy

from training.data.collection import Data, Samples
from training.data.idx import DataError
from training.data.targets import classify
from training.files import clipped
from training.files.printable import printable

ENDINGS = (".csv", ".tsv")
LARGEST_FILE = 4 << 30
"""The most bytes of a table: its numbers are held in memory."""

_TARGETS = ("target", "label", "class", "y", "t")
"""Names of the target column; without one of them it is the last column."""

_SEPARATORS = (",", ";", "\t")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,15}", re.ASCII)


class _Table:
    """A table in a file.

    Attributes:
        file: the file.
        columns: the names of the columns.
        features: float64 (N, D).
        targets: texts or numbers (N,).
    """

    def __init__(self, file: Path, target: str | None, columns: Sequence[str] | None = None) -> None:
        self.file = file
        rows = _rows(file)
        _, first = next(rows, (1, []))
        if not first:
            raise DataError(f"{printable(file)}: expected a table with a line of column names, got an empty file")
        has_names = not all(_NUMBER.fullmatch(cell.strip()) for cell in first)
        self.columns = [cell.strip() for cell in first] if has_names else [str(n) for n in range(1, len(first) + 1)]
        twice = [name for name in self.columns if self.columns.count(name) > 1]
        if twice:
            raise DataError(f"{printable(file)}: two columns are called {clipped(twice[0])}")
        if len(self.columns) < 2:
            raise DataError(
                f"{printable(file)}: expected feature columns and a target column, separated by , ; or a tab, got "
                f"one column, {clipped(self.columns[0])}"
            )
        if columns is not None and self.columns != list(columns):
            raise DataError(
                f"{printable(file)}: expected the columns {clipped(list(columns))} of the training table, got "
                f"{clipped(self.columns)}"
            )
        place = self._target_place(target)
        self.target = self.columns[place]
        numbers, texts = [], []
        if not has_names:
            rows = _chained(first, rows)
        for line, row in rows:
            if len(row) != len(self.columns):
                self._fail(line, f"expected {len(self.columns)} values, got {len(row)}")
            texts.append(row[place].strip())
            if not texts[-1]:
                self._fail(line, f"column {clipped(self.target)}: expected a target, got an empty value")
            numbers.append([self._number(line, at, cell) for at, cell in enumerate(row) if at != place])
        if not numbers:
            raise DataError(f"{printable(file)}: expected rows after the names of the columns, got none")
        self.features = numpy.array(numbers, "float64")
        self.targets = self._as_targets(texts)

    def _target_place(self, target: str | None) -> int:
        if target is None:
            lowered = [name.lower() for name in self.columns]
            return next((lowered.index(name) for name in _TARGETS if name in lowered), len(self.columns) - 1)
        if target not in self.columns:
            raise DataError(
                f"{printable(self.file)}: there is no column {clipped(target)} for the target; expected one of "
                f"{', '.join(map(clipped, self.columns[:20]))}"
            )
        return self.columns.index(target)

    def _number(self, line: int, at: int, cell: str) -> float:
        text = cell.strip()
        number = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(number):
            got = clipped(text) if text else "an empty value"
            self._fail(line, f"column {clipped(self.columns[at])}: expected a finite number, got {got}")
        return number

    def _fail(self, line: int, reason: str) -> NoReturn:
        raise DataError(f"{printable(self.file)}, line {line}: {reason}")

    @staticmethod
    def _as_targets(texts: list[str]) -> numpy.ndarray:
        if all(_WHOLE.fullmatch(text) for text in texts):
            return numpy.array([int(text) for text in texts], "int64")
        if all(_NUMBER.fullmatch(text) for text in texts):
            return numpy.array([float(text) for text in texts], "float64")
        return numpy.array(texts)


def open_tables(name: str, files: dict[str, Path], target: str | None, kind: str | None) -> Data:
    """Open a table, or one for each part: comma, semicolon or tab between values, quotes where they need them.

    The first line has the names of the columns unless all of it is numbers. All columns but the target's are features
    and must be finite numbers. The target's column is ``target``, or else the one that is called target, label, class,
    y or t, or else the last. Data are classified where it has texts or whole numbers.

    Raises:
        DataError: a row has too few or too many values, or one that is no finite number (file, line and column are
            named); columns are missing.
        OSError: a file cannot be read.
    """
    train = _Table(files["train"], target)
    tables = {
        part: train if part == "train" else _Table(file, train.target, train.columns) for part, file in files.items()
    }
    where = printable(files["train"])
    kind, classes, targets = classify(where, {part: table.targets for part, table in tables.items()}, kind)
    samples = {part: Samples(table.features, targets[part]) for part, table in tables.items()}
    features = [column for column in train.columns if column != train.target]
    note = f"the target is column {clipped(train.target)}; features: {', '.join(map(clipped, features[:8]))}" + (
        f" and {len(features) - 8:,} more" if len(features) > 8 else ""
    )
    return Data.of(name, kind, classes, samples, notes=(note,))


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line and the values of each row that is not empty."""
    if file.stat().st_size > LARGEST_FILE:
        raise DataError(f"{printable(file)}: tables of at most {LARGEST_FILE >> 30} GB are read; use .npy files")
    with file.open("rb") as binary:
        stream = io.TextIOWrapper(binary, "utf-8-sig", newline="")
        try:
            first = stream.readline(1 << 20)
            stream.seek(0)
            reader = csv.reader(stream, delimiter=max(_SEPARATORS, key=first.count), strict=True)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise DataError(f"{printable(file)}: expected text in UTF-8, got {error.reason}") from error
        except csv.Error as error:
            raise DataError(f"{printable(file)}, line {reader.line_num}: {error}") from error


def _chained(first: list[str], rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield 1, first
    yield from rows
