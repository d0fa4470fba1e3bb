"""Read CIFAR-10 and CIFAR-100 in their binary form.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), and the page of the data sets: each image
is a record of one byte with its label (CIFAR-100: two bytes, the coarse and the fine label) and 3,072 bytes, the red,
green and blue plane of 32 x 32 pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy

from training.data.collection import Data, Samples
from training.data.formats.parts import part_in
from training.data.idx import DataError
from training.files.printable import printable

_PIXELS = (3, 32, 32)
_NAMES = 100_000
"""The most bytes of a file with the names of classes."""


def files_of(folder: Path) -> list[Path]:
    """Return the binary files of a CIFAR in a folder: ``data_batch_1.bin`` and so on, or ``train.bin``."""
    files = sorted(folder.glob("*.bin"))
    return [file for file in files if file.name.startswith("data_batch") or part_in(file.stem)[1] in ("", "batch")]


def open_cifar(folder: Path, files: list[Path]) -> Data:
    """Open the binary files of CIFAR-10 or CIFAR-100, with the fine labels, and the names of classes next to them.

    Raises:
        DataError: a file is not of whole records, a label is out of range, or there are no training files.
        OSError: a file cannot be read.
    """
    is_100 = any(file.name == "train.bin" for file in files)
    names = _class_names(folder, "fine_label_names.txt" if is_100 else "batches.meta.txt", 100 if is_100 else 10)
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(part_in(file.stem)[0], []).append(file)
    if "train" not in parts:
        raise DataError(
            f"{printable(folder)}: expected data_batch_1.bin or train.bin beside {printable(files[0].name)}"
        )
    samples = {part: _read(some, 2 if is_100 else 1, len(names)) for part, some in parts.items()}
    return Data.of(folder.resolve().name, "classification", names, samples)


def _read(files: list[Path], label_bytes: int, classes: int) -> Samples:
    record, images, labels = label_bytes + 3072, [], []
    for file in files:
        content = numpy.fromfile(file, numpy.uint8)
        if not content.size or content.size % record:
            raise DataError(
                f"{printable(file)}: expected records of {record:,} bytes, got {content.size:,} bytes, "
                f"{content.size % record:,} too many"
            )
        rows = content.reshape(-1, record)
        wrong = numpy.flatnonzero(rows[:, label_bytes - 1] >= classes)
        if len(wrong):
            raise DataError(
                f"{printable(file)}: label {rows[wrong[0], label_bytes - 1]} of record {wrong[0]} is out of range: "
                f"expected 0 to {classes - 1}"
            )
        labels.append(rows[:, label_bytes - 1].astype("int64"))
        images.append(rows[:, label_bytes:].reshape(-1, *_PIXELS))
    return Samples(numpy.concatenate(images), numpy.concatenate(labels))


def _class_names(folder: Path, file: str, classes: int) -> tuple[str, ...]:
    """Return the names in a file, one a line, or numbers if there is no such file."""
    path = folder / file
    if not path.is_file():
        return tuple(str(label) for label in range(classes))
    with path.open("rb") as stream:
        lines = stream.read(_NAMES).decode("utf-8", "replace").split()
    if len(lines) != classes:
        raise DataError(f"{printable(path)}: expected {classes} names of classes, got {len(lines)}")
    return tuple(lines)
