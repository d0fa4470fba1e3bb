"""Find the pictures that a file ``labels.csv`` names, with their labels."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from training.data.collection import Data, Samples
from training.data.formats.parts import part_folders
from training.data.formats.tables import Sheet, as_targets
from training.data.idx import DataError
from training.data.image_files import ImageFiles
from training.data.inputs import Subset
from training.data.targets import classify
from training.files import clipped
from training.files.printable import printable

NAME = "labels.csv"

_BETWEEN = re.compile(r"[;|]")


def label_files(folder: Path) -> dict[str, Path]:
    """Return the files ``labels.csv`` in a folder or its parts, if the first row names a picture next to it."""
    found = {part: entry / NAME for part, entry in part_folders(folder).items() if (entry / NAME).is_file()}
    if "train" not in found:
        found = {"train": folder / NAME} if (folder / NAME).is_file() else {}
    return found if found and _names_pictures(found["train"]) else {}


def open_labelled(
    folder: Path,
    files: dict[str, Path],
    size: tuple[int, int] | None,
    channels: int | None,
    kind: str | None,
    progress: Callable[[int, int], None],
) -> Data:
    """Open pictures by files that name them in the first column, and what they show in the others.

    A second column of texts has classes or, with ``;`` or ``|`` between them, labels; one of numbers what ``classify``
    tells. Several further columns have 0 or 1 for the label that each is called, or numbers to predict.

    Raises:
        DataError: a file is damaged, a picture is missing or cannot be read, or a row has no class.
        OSError: a file cannot be read.
    """
    names: list[str] | None = None
    pictures: dict[str, list[Path]] = {}
    values: dict[str, list[Any]] = {}
    for part, file in files.items():
        pictures[part], values[part], columns = _read(file)
        if names is not None and columns != names:
            raise DataError(f"{printable(file)}: expected the columns {clipped(names)}, got {clipped(columns)}")
        names = columns
    assert names is not None
    where, several = printable(folder), names if len(names) > 1 else None
    if several is None and any(_BETWEEN.search(text) for texts in values.values() for text in texts):
        labels = {part: [_split(text) for text in texts] for part, texts in values.items()}
        several = sorted({label for found in labels["train"] for label in found})
        values = {part: _rows(where, part, found, several) for part, found in labels.items()}
        kind = kind or "multi-label"
    for part, found in values.items():
        if "" in found:
            raise DataError(f"{printable(files[part])}: {printable(pictures[part][found.index('')].name)} has no class")
    kind, classes, targets = classify(where, {part: as_targets(each) for part, each in values.items()}, kind, several)
    every = [file for part in pictures.values() for file in part]
    images = ImageFiles(every, size, channels, lambda count: progress(count, len(every)))
    samples, first = {}, 0
    for part, own in pictures.items():
        samples[part] = Samples(Subset(images, numpy.arange(first, first + len(own))), targets[part])
        first += len(own)
    return Data.of(folder.resolve().name, kind, classes, samples)


def _read(file: Path) -> tuple[list[Path], list[Any], list[str]]:
    """Return the pictures, the values of their other columns, and the names of these."""
    sheet = Sheet(file)
    if len(sheet.columns) < 2 or not sheet.has_names or _is_file(file, sheet.columns[0]):
        raise DataError(f"{printable(file)}: expected a first line with the names of two columns or more")
    pictures, values, places = [], [], range(1, len(sheet.columns))
    for line, row in sheet:
        if not _is_file(file, row[0]):
            sheet.fail(line, f"there is no picture {clipped(row[0].strip())} in {printable(file.parent)}")
        pictures.append(file.parent / row[0].strip())
        values.append(row[1].strip() if len(places) == 1 else sheet.target(line, row, places))
    return pictures, values, sheet.columns[1:]


def _names_pictures(file: Path) -> bool:
    """Return True if the first row of a table, or its line of names, begins with the name of a file next to it."""
    sheet = Sheet(file)
    return _is_file(file, sheet.columns[0]) or _is_file(file, next(iter(sheet))[1][0])


def _is_file(table: Path, name: str) -> bool:
    return bool(name.strip()) and (table.parent / name.strip()).is_file()


def _split(text: str) -> list[str]:
    return [label for each in _BETWEEN.split(text) if (label := each.strip())]


def _rows(where: str, part: str, labels: list[list[str]], names: list[str]) -> list[list[float]]:
    unknown = next((label for found in labels for label in found if label not in names), None)
    if unknown is not None:
        raise DataError(f"{where}: label {clipped(unknown)} of the {part} part is not among the training labels")
    return [[float(name in found) for name in names] for found in labels]
