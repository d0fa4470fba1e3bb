"""Open data by path: a folder of pictures, arrays, a table, CIFAR's or IDX files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from backend import checks
from training.data.collection import Data
from training.data.formats.arrays import npy_files, open_npy, open_npz
from training.data.formats.cifar import files_of, open_cifar
from training.data.formats.folders import open_folder
from training.data.formats.idx_pairs import idx_files, open_idx
from training.data.formats.label_files import label_files, open_labelled
from training.data.formats.parts import part_of
from training.data.formats.tables import ENDINGS, open_tables
from training.data.idx import DataError
from training.files import clipped
from training.files.printable import printable

_EXPECTED = (
    "expected a folder of classes with pictures, CIFAR's .bin files, IDX files, an .npz, a pair of .npy files or a .csv"
)


def open(  # noqa: A001  (called training.data.open)
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    target: str | None = None,
    target_kind: str | None = None,
    val: float | None = None,
    test: float | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda count, total: None,
) -> Data:
    """Open data to train on.

    A folder may hold

    - a folder of pictures (PNG, JPEG, BMP, WebP, GIF, TIFF) for each class, directly or in ``train``, ``val``, …;
    - pictures and a ``labels.csv`` with the name of each and its class, labels or numbers, in such parts or directly;
    - CIFAR-10 or CIFAR-100 in their binary form;
    - IDX files, as MNIST's: ``train-images-idx3-ubyte`` and so on, plain or gzipped;
    - ``x.npy`` and ``y.npy``, or ``x_train.npy``, ``y_train.npy``, ``x_test.npy`` and so on, which stay on the disk;
    - ``train.csv``, ``val.csv``, ``test.csv``.

    A file is an ``.npz`` with such arrays, one of the ``.npy`` files, or a table (``.csv``, ``.tsv``).

    Args:
        path: the file or folder.
        size: (H, W), or both in one number, to which pictures in files are resized.
        channels: 1 to read pictures in files in gray, 3 in color; None by what they are.
        target: name of a table's target column; of several, with commas between.
        target_kind: "classification", "multi-label" or "regression"; None by the targets: texts and whole numbers are
            classes, rows of 0 and 1 labels.
        val, test: shares of the samples that are split off where there is no such part; None for no such part.
        seed: of the split.
        progress: called with the number of pictures that have been looked at since the last call, and of all.

    Raises:
        DataError: there are no such data, or they are damaged; the message names the file, row or class.
        OSError: a file cannot be read.
        TypeError, ValueError: an argument is of another kind or out of range.

    Examples:
        >>> import numpy
        >>> import training.data
        >>> numpy.savez("points.npz", x=numpy.eye(4), y=numpy.array([0, 1, 0, 1]))
        >>> data = training.data.open("points.npz")
        >>> data.kind, data.classes, data.shape, len(data.train)
        ('classification', ('0', '1'), (4,), 4)
    """
    path = Path(path)
    if size is not None:
        height, width = checks.sizes("size", (size, size) if isinstance(size, int) else size, 1, 2)
        size = (height, width)
    if channels is not None and channels not in (1, 3):
        raise checks.refusal(ValueError, "channels", "1 or 3", channels)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {printable(path)}")
    data = (
        _in_folder(path, size, channels, target, target_kind, progress)
        if path.is_dir()
        else _in_file(path, target, target_kind)
    )
    if target is not None and data.columns is None:
        raise DataError(
            f"{printable(path)} is not a table: expected a .csv or .tsv for the target column {clipped(target)}"
        )
    if val is None and test is None:
        return data
    return data.with_parts(val, test, seed)


def _in_file(file: Path, target: str | None, kind: str | None) -> Data:
    ending = file.suffix.lower()
    if not file.is_file():
        raise DataError(f"{printable(file)} is neither a file nor a folder; {_EXPECTED}")
    if ending == ".npz":
        return open_npz(file, kind)
    if ending == ".npy":
        return open_npy(file.absolute().parent, npy_files(file.absolute().parent), kind)
    if ending in ENDINGS:
        return open_tables(file.stem, {"train": file}, target, kind)
    raise DataError(f"{printable(file)}: {_EXPECTED}")


def _in_folder(
    folder: Path,
    size: tuple[int, int] | None,
    channels: int | None,
    target: str | None,
    kind: str | None,
    progress: Callable[[int, int], None],
) -> Data:
    if cifar := files_of(folder):
        return open_cifar(folder, cifar)
    if idx := idx_files(folder):
        return open_idx(folder, idx, kind)
    if arrays := npy_files(folder):
        return open_npy(folder, arrays, kind)
    tables = {
        part: file for file in sorted(folder.iterdir()) if file.suffix in ENDINGS and (part := part_of(file.stem))
    }
    if "train" in tables:
        return open_tables(folder.resolve().name, tables, target, kind)
    if labelled := label_files(folder):
        return open_labelled(folder, labelled, size, channels, kind, progress)
    return open_folder(folder, size, channels, progress)
