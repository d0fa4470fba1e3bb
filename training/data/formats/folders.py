"""Find the pictures of a folder of classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy

from training.data.collection import Data, Samples
from training.data.formats.parts import SPELLINGS, part_folders
from training.data.idx import DataError
from training.data.image_files import ImageFiles
from training.data.inputs import Subset
from training.files.printable import printable

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
"""The endings of files that are taken for pictures; which format they have, their first bytes tell."""


def open_folder(
    folder: Path,
    size: tuple[int, int] | None,
    channels: int | None,
    progress: Callable[[int, int], None],
) -> Data:
    """Open a folder with a folder of pictures for each class, or with such folders in ``train``, ``val`` and ``test``.

    Raises:
        DataError: there are no pictures or fewer than two classes, a class of the training part has none, a class is
            in another part only, or a picture cannot be read.
        OSError: a folder cannot be read.
    """
    parts = part_folders(folder)
    if "train" not in parts:
        parts = {"train": folder}
    found: dict[str, _Classes] = {part: _Classes(parts[part]) for part in SPELLINGS if part in parts}
    classes = _checked(found)
    files = [file for one in found.values() for file in one.files]
    pictures = ImageFiles(files, size, channels, lambda count: progress(count, len(files)))
    samples, first = {}, 0
    for part, one in found.items():
        indices = numpy.arange(first, first + len(one.files))
        targets = numpy.array([classes.index(name) for name in one.labels], "int64")
        samples[part] = Samples(Subset(pictures, indices), targets)
        first += len(one.files)
    left_out = sum(one.others for one in found.values())
    notes = (f"{left_out:,} files that are no pictures, by their endings, are left out",) if left_out else ()
    return Data.of(folder.resolve().name, "classification", classes, samples, notes=notes)


class _Classes:
    """The pictures of the folders of classes in a folder.

    Attributes:
        names: of the classes, in order.
        files, labels: the pictures, and the class of each.
        others: number of files that are no pictures.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folders = {entry.name: entry for entry in _folders(folder)}
        by_number = all(name.isascii() and name.isdigit() for name in folders)
        self.names = sorted(folders, key=(lambda name: (int(name), name)) if by_number else None)
        self.files: list[Path] = []
        self.labels: list[str] = []
        self.others = 0
        for name in self.names:
            pictures = sorted(self._pictures(folders[name]))
            self.files += pictures
            self.labels += [name] * len(pictures)
        self.loose = sum(_is_picture(entry.name) for entry in os.scandir(folder))

    def _pictures(self, folder: Path) -> list[Path]:
        pictures = []
        for place, folders, names in os.walk(folder, onerror=_raise):  # links to folders are not followed
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if _is_picture(name):
                    pictures.append(Path(place, name))
                elif not name.startswith("."):
                    self.others += 1
        return pictures


def _checked(found: dict[str, _Classes]) -> list[str]:
    """Return the names of the classes, after a look at what is missing."""
    train = found["train"]
    here = printable(train.folder)
    if not train.files:
        loose = f" ({train.loose:,} pictures lie in no folder of a class)" if train.loose else ""
        raise DataError(
            f"{here}: there are no pictures in folders of classes{loose}; expected CLASS/PICTURE.png or "
            "train/CLASS/PICTURE.png in it"
        )
    for part, one in found.items():
        empty = [name for name in one.names if name not in set(one.labels)]
        if part == "train" and empty:
            raise DataError(f"{here}: class {printable(repr(empty[0]))} has no pictures; fill or remove its folder")
        unknown = [name for name in one.names if name not in train.names]
        if unknown:
            raise DataError(
                f"{printable(one.folder)}: class {printable(repr(unknown[0]))} is not among the training classes "
                f"({_listed(train.names)})"
            )
        if not one.files:
            raise DataError(f"{printable(one.folder)}: there are no pictures in folders of classes")
    if len(train.names) < 2:
        raise DataError(f"{here}: expected the folders of two classes or more, got {_listed(train.names)} alone")
    return train.names


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder; those that are hidden and that of xpnet's runs are left out."""
    found = [Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_dir()]
    return [each for each in found if each.name != "runs" or not any(each.glob("*/metrics.jsonl"))]


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS


def _listed(names: list[str]) -> str:
    return ", ".join(map(printable, names[:10])) + (", …" if len(names) > 10 else "")


def _raise(error: OSError) -> None:
    raise error
