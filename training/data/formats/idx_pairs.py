"""Read images and labels from pairs of IDX files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy

from training.data.collection import Data, Samples
from training.data.formats.parts import part_in
from training.data.idx import DataError, read_idx
from training.data.targets import classify
from training.files.printable import printable

_NAME = re.compile(r"(?P<part>.+?)[-._](?P<what>images|labels)[-._]idx[13](?:[-._]ubyte)?(?:\.gz)?$", re.IGNORECASE)


def idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """Return the IDX files of a folder by part and content: ``train-images-idx3-ubyte`` is ("train", "images")."""
    found = {}
    for file in sorted(folder.iterdir(), reverse=True):  # the name without .gz, first of equals, comes last
        if (match := _NAME.match(file.name)) and file.is_file():
            part = "test" if match["part"].lower() == "t10k" else part_in(match["part"])[0]
            found[part, match["what"].lower()] = file
    return found


def open_idx(folder: Path, files: dict[tuple[str, str], Path], kind: str | None) -> Data:
    """Open the IDX files of a folder: ``train-images-idx3-ubyte`` and so on, plain or gzipped; t10k is the test part.

    Raises:
        DataError: a file is damaged, or one of a pair is missing.
        OSError: one cannot be read.
    """
    images: dict[str, numpy.ndarray] = {}
    labels: dict[str, numpy.ndarray] = {}
    for part in {part: None for part, _ in files} | {"train": None}:
        for what, arrays, ndim in (("images", images, 3), ("labels", labels, 1)):
            if (part, what) not in files:
                raise DataError(
                    f"{printable(folder)}: expected {part}-{what}-idx{ndim}-ubyte beside the other IDX files"
                )
            arrays[part] = read_idx(files[part, what], ndim)
        if len(images[part]) != len(labels[part]) or not len(images[part]):
            raise DataError(
                f"{printable(files[part, 'labels'])}: expected as many labels as images, {len(images[part]):,}, got "
                f"{len(labels[part]):,}"
            )
        if images[part].shape[1:] != images["train" if "train" in images else part].shape[1:]:
            raise DataError(f"{printable(folder)}: the images of the parts have different sizes")
    kind, classes, targets = classify(printable(folder), labels, kind)
    samples = {part: Samples(one[:, numpy.newaxis], targets[part]) for part, one in images.items()}
    return Data.of(folder.resolve().name, kind, classes, samples)
