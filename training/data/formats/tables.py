"""Read tables of features and targets from CSV files."""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy

from training.data.collection import Columns, Data, Samples
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


class Sheet:
    """The columns of a table in a file, and its rows, which can be gone through once.

    Attributes:
        file: the file.
        has_names: the first line has the names of the columns; without, they are called 1, 2, ….
        columns: the names of the columns.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._rows = _rows(file)
        _, first = next(self._rows, (1, []))
        if not first:
            raise DataError(f"{printable(file)}: expected a table with a line of column names, got an empty file")
        self.has_names = not all(_NUMBER.fullmatch(cell.strip()) for cell in first)
        if self.has_names:
            self.columns = [cell.strip() for cell in first]
        else:
            self.columns = [str(number) for number in range(1, len(first) + 1)]
            self._rows = chain([(1, first)], self._rows)
        twice = [name for name in self.columns if self.columns.count(name) > 1]
        if twice:
            raise DataError(f"{printable(file)}: two columns are called {clipped(twice[0])}")

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the line and the values of each row; raise a DataError if there is none."""
        is_empty = True
        for line, row in self._rows:
            if len(row) != len(self.columns):
                self.fail(line, f"expected {len(self.columns)} values, got {len(row)}")
            yield line, row
            is_empty = False
        if is_empty:
            raise DataError(f"{printable(self.file)}: expected rows after the names of the columns, got none")

    def number(self, line: int, at: int, cell: str) -> float:
        """Return the number in column ``at`` of a line."""
        text = cell.strip()
        number = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(number):
            got = clipped(text) if text else "an empty value"
            self.fail(line, f"column {clipped(self.columns[at])}: expected a finite number, got {got}")
        return number

    def target(self, line: int, row: list[str], places: Sequence[int]) -> str | list[float]:
        """Return the text in a target column of a row, or the numbers in several."""
        if len(places) > 1:
            return [self.number(line, place, row[place]) for place in places]
        text = row[places[0]].strip()
        if not text:
            self.fail(line, f"column {clipped(self.columns[places[0]])}: expected a target, got an empty value")
        return text

    def fail(self, line: int, reason: str) -> NoReturn:
        """Raise a DataError with the file and the line."""
        raise DataError(f"{printable(self.file)}, line {line}: {reason}")


class _Table:
    """A table with a target column, or several.

    Attributes:
        columns: the names of the columns.
        targets: the names of the target columns.
        features: float64 (N, D).
        values: of the targets: texts or numbers (N,), of several columns numbers (N, columns).
    """

    def __init__(self, file: Path, target: str | None, columns: Sequence[str] | None = None) -> None:
        sheet = Sheet(file)
        self.columns = sheet.columns
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
        places = _target_places(sheet, target)
        self.targets = [self.columns[place] for place in places]
        if len(self.columns) == len(places):
            raise DataError(f"{printable(file)}: expected feature columns next to the targets {clipped(self.targets)}")
        numbers, values = array("d"), []  # 8 bytes a number: a list would take 32
        for line, row in sheet:
            values.append(sheet.target(line, row, places))
            numbers.extend([sheet.number(line, at, cell) for at, cell in enumerate(row) if at not in places])
        self.features = numpy.frombuffer(numbers).reshape(len(values), -1)
        self.values = as_targets(values)


def as_targets(values: list[Any]) -> numpy.ndarray:
    """Return targets as an array: lists of numbers, or texts that are whole numbers, numbers or neither."""
    if isinstance(values[0], list):
        return numpy.array(values, "float64")
    if all(_WHOLE.fullmatch(text) for text in values):
        return numpy.array([int(text) for text in values], "int64")
    if all(_NUMBER.fullmatch(text) for text in values):
        return numpy.array([float(text) for text in values], "float64")
    return numpy.array(values)


def _target_places(sheet: Sheet, target: str | None) -> list[int]:
    """Return the places of the target columns: one, or several whose names are given with commas between."""
    if target is None:
        lowered = [name.lower() for name in sheet.columns]
        return [next((lowered.index(name) for name in _TARGETS if name in lowered), len(sheet.columns) - 1)]
    names = [target] if target in sheet.columns else [name.strip() for name in target.split(",")]
    for name in names:
        if name not in sheet.columns:
            raise DataError(
                f"{printable(sheet.file)}: there is no column {clipped(name)} for the target; expected one of "
                f"{', '.join(map(clipped, sheet.columns[:20]))}"
            )
    return [sheet.columns.index(name) for name in dict.fromkeys(names)]


def read_features(file: Path, names: Sequence[str], count: int) -> numpy.ndarray:
    """Read the features of a table with or without targets: float64 (N, count), in the order of ``names``.

    Args:
        names: of the feature columns, in the training table's order; the table may have others, too, and another order.
            Empty if they are not known; then, or for a table without names, the columns are taken in their order.
        count: number of features.

    Raises:
        DataError: columns are missing, or a row has too few or too many values, or one that is not a finite number.
        OSError: the file cannot be read.
    """
    sheet = Sheet(file)
    missing = [name for name in names if name not in sheet.columns]
    if names and not missing:
        places = [sheet.columns.index(name) for name in names]
    elif missing and sheet.has_names:
        raise DataError(
            f"{printable(file)}: there is no column {clipped(missing[0])}; expected the features "
            f"{', '.join(map(clipped, names[:20]))}, got {', '.join(map(clipped, sheet.columns[:20]))}"
        )
    elif len(sheet.columns) == count:
        places = list(range(count))
    else:
        raise DataError(f"{printable(file)}: expected {count:,} columns of features, got {len(sheet.columns):,}")
    numbers = array("d")
    for line, row in sheet:
        numbers.extend([sheet.number(line, at, row[at]) for at in places])
    return numpy.frombuffer(numbers).reshape(-1, count)


def open_tables(name: str, files: dict[str, Path], target: str | None, kind: str | None) -> Data:
    """Open a table, or one for each part: comma, semicolon or tab between values, quotes where they need them.

    The first line has the names of the columns unless all of it is numbers. All columns but the target's are features
    and must be finite numbers. The target's column is ``target``, or else the one that is called target, label, class,
    y or t, or else the last. Data are classified where it has texts or whole numbers. Several columns, with commas
    between their names, are labels where all are 0 or 1, and else numbers to predict.

    Raises:
        DataError: a row has too few or too many values, or one that is not a finite number (file, line and column are
            named); columns are missing.
        OSError: a file cannot be read.
    """
    train = _Table(files["train"], target)
    known = ",".join(train.targets)
    tables = {part: train if part == "train" else _Table(file, known, train.columns) for part, file in files.items()}
    where, several = printable(files["train"]), train.targets if len(train.targets) > 1 else None
    kind, classes, targets = classify(where, {part: table.values for part, table in tables.items()}, kind, several)
    samples = {part: Samples(table.features, targets[part]) for part, table in tables.items()}
    features = [column for column in train.columns if column not in train.targets]
    which = "the targets are columns" if several else "the target is column"
    note = f"{which} {', '.join(map(clipped, train.targets))}; features: {', '.join(map(clipped, features[:8]))}" + (
        f" and {len(features) - 8:,} more" if len(features) > 8 else ""
    )
    columns = Columns(tuple(features), known)
    return Data.of(name, kind, classes, samples, notes=(note,), columns=columns)


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
