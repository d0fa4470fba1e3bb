"""Load data sets by name: one that is part of this package, others from disk or from the network."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backend import asarray
from backend.checks import flag
from backend.types import Array
from kernels.labels import check_dtype, check_range
from training.data.collection import KINDS, Data, Samples
from training.data.download import cache_dir, fetch
from training.data.idx import DataError, read_labelled_images
from training.data.sources import EMBEDDED, FILES, SOURCES, Source
from training.files import clipped
from training.files.durable import is_disk_full

if TYPE_CHECKING:
    from training.data.idx import AnyPath

NAMES = tuple(SOURCES)
"""The names that ``load`` knows."""

_SPELLINGS = ("{stem}-{idx}", "{stem}.{idx}", "{stem}-{idx}.gz", "{stem}.{idx}.gz")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images to train and to test on, on the host.

    Attributes:
        name: as given to ``load``.
        classes: the name of each label.
        train_images: (N, C, H, W), uint8 in 0 … 255 or floating.
        train_labels: (N,), integers in 0 … len(classes) - 1.
        test_images: (M, C, H, W).
        test_labels: (M,).

    Raises:
        DataError: a shape, a dtype or a label is not as above.

    Examples:
        >>> import numpy
        >>> from training import Dataset
        >>> images, labels = numpy.zeros((4, 1, 8, 8), "uint8"), numpy.array([0, 1, 1, 0])
        >>> Dataset("spots", ("none", "one"), images, labels, images[:2], labels[:2]).input_dim
        (1, 8, 8)
    """

    name: str
    classes: tuple[str, ...]
    train_images: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_images: np.ndarray = field(repr=False)
    test_labels: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise DataError(f"the name of a data set must be a string, got {clipped(self.name)}")
        if not isinstance(self.classes, (tuple, list)) or not all(isinstance(name, str) for name in self.classes):
            raise DataError(f"{self.name}: classes must be a tuple of names, got {clipped(self.classes)}")
        for part in ("train", "test"):
            self._check(part, getattr(self, f"{part}_images"), getattr(self, f"{part}_labels"))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"{self.name}: training images are {self.train_images.shape[1:]}, "
                f"test images {self.test_images.shape[1:]}; expected one shape (C, H, W)"
            )

    @property
    def input_dim(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def as_data(self) -> Data:
        """Return the images as ``Data`` in two parts, which are not normalized."""
        train, test = Samples(self.train_images, self.train_labels), Samples(self.test_images, self.test_labels)
        return Data(self.name, KINDS[0], tuple(self.classes), train, test=test, normalized=False)

    def _check(self, part: str, images: np.ndarray, labels: np.ndarray) -> None:
        for kind, array in (("images", images), ("labels", labels)):
            if not isinstance(array, np.ndarray):
                raise DataError(f"{self.name}: {part}_{kind} must be a NumPy array, got {type(array).__name__}")
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{self.name}: {part} images must be (N, C, H, W) and labels (N,), "
                f"got {images.shape} and {labels.shape}"
            )
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise DataError(f"{self.name}: {part} images must be uint8 or floating point, got {images.dtype}")
        try:
            check_dtype(labels)
            check_range(labels, len(self.classes))
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.name}, {part} data: {error}") from None


def load(
    name: str = EMBEDDED,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    progress: bool = True,
) -> Dataset:
    """Load a data set by name, and check its files against published SHA-256 sums.

    ``"mnist10k"``, the default, is part of this package: the first 10,000 training and first 2,000 test
    images of MNIST. ``"mnist"`` and ``"fashion-mnist"`` (60,000 and 10,000) are four IDX files, plain or
    gzipped, ``train-images-idx3-ubyte`` and so on. They are searched for in ``data_dir`` only if it is given, else in
    the folder that ``XPNET_DATA_DIR`` names, then in the user's cache folder; in each first in a subfolder with the
    set's name, then directly.

    Args:
        name: one of ``NAMES``.
        data_dir: folder with the files, or with a subfolder that has them.
        download: download files that are not found, or are damaged in the cache folder. They go into the cache folder,
            never into ``data_dir`` or ``XPNET_DATA_DIR``.
        progress: show a progress bar while downloading.

    Returns:
        A ``Dataset`` of uint8 images (N, 1, 28, 28) and uint8 labels (N,), all read-only.

    Raises:
        DataError: unknown name; files are not found, damaged or of another set; the download failed. The message says
        how
            to supply them. A failed download leaves nothing behind.
        OSError: a file cannot be read.
        TypeError: ``download`` or ``progress`` is neither True nor False.

    Examples:
        >>> from training import load
        >>> digits = load("mnist10k")
        >>> digits.train_images.shape, digits.test_labels[:5]
        ((10000, 1, 28, 28), array([7, 2, 1, 0, 4], dtype=uint8))
    """
    download, progress = flag("download", download), flag("progress", progress)
    if not isinstance(name, str) or name not in SOURCES:
        raise DataError(f"unknown data set {name!r}: expected one of {', '.join(NAMES)}")
    source = SOURCES[name]
    if name == EMBEDDED:
        if data_dir is not None:
            raise DataError(f"{name} is part of xpnet and is not read from {data_dir}; did you mean dataset 'mnist'?")
        folder = importlib.resources.files("training.data") / "embedded"
        arrays = _read([folder / f"{stem}.gz" for stem, _ in FILES], source)
    else:
        arrays = _read_or_fetch(name, source, data_dir, download, progress)
    return Dataset(name, source.classes, *arrays)


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    dataset: str = "mnist",
    download: bool = True,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Load MNIST in the form of the book *Deep Learning from Scratch*, on the active device.

    Args:
        normalize: return pixels as float32 in 0 … 1, else as uint8 in 0 … 255.
        flatten: return images as (N, 784), else as (N, 1, 28, 28).
        one_hot_label: return labels as float32 one-hot rows (N, 10) (float64 in the book and in
            ``training.compat.book.mnist``), else as uint8 (N,).
        data_dir: as for ``load``.
        dataset: another name of ``NAMES``; ``"mnist10k"`` needs no files and no network.
        download: download files that are not found.

    Returns:
        ``(x_train, t_train), (x_test, t_test)``.

    Raises:
        DataError, OSError: as ``load``.

    Examples:
        >>> from training import load_mnist
        >>> (x_train, t_train), (x_test, t_test) = load_mnist(dataset="mnist10k")
        >>> x_train.shape, x_train.dtype, t_train[:3]
        ((10000, 784), dtype('float32'), array([5, 0, 4], dtype=uint8))
    """
    normalize, flatten = flag("normalize", normalize), flag("flatten", flatten)
    one_hot_label = flag("one_hot_label", one_hot_label)
    data = load(dataset, data_dir, download=download)

    def prepare(images: np.ndarray, labels: np.ndarray) -> tuple[Array, Array]:
        # A copy in each case: the arrays of a Dataset are read-only.
        x = images.astype(np.float32) if normalize else images.copy()
        if normalize:
            x /= 255
        if flatten:
            x = x.reshape(len(x), -1)
        t = np.eye(len(data.classes), dtype=np.float32)[labels] if one_hot_label else labels.copy()
        return asarray(x), asarray(t)

    return prepare(data.train_images, data.train_labels), prepare(data.test_images, data.test_labels)


def _read(paths: Sequence[AnyPath], source: Source) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images and labels, test images and labels."""
    classes = len(source.classes)
    train = read_labelled_images(paths[0], paths[1], classes, sha256=source.sha256[:2])
    test = read_labelled_images(paths[2], paths[3], classes, sha256=source.sha256[2:])
    return *train, *test


def _read_or_fetch(
    name: str, source: Source, data_dir: str | os.PathLike[str] | None, download: bool, progress: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from_environment = os.environ.get("XPNET_DATA_DIR")
    cache = cache_dir()
    if data_dir is not None:
        folders = [Path(data_dir).expanduser()]
    elif from_environment:
        folders = [Path(from_environment).expanduser(), cache]
    else:
        folders = [cache]
    faults = []
    for folder in folders:
        paths, missing = _search(folder, name)
        if missing:
            faults.append(f"\n  {folder}: {missing}")
            continue
        try:
            return _read(paths, source)
        except DataError as error:
            if folder is not cache:  # the user's own files are not replaced
                raise
            faults.append(f"\n  {error}")
    searched = f"{source.title} was not found, or is incomplete:{''.join(faults)}"
    if download and data_dir is None:
        try:
            fetch(source, cache / name, progress=progress)
            return _read(_search(cache, name)[0], source)
        except (DataError, OSError) as error:
            if is_disk_full(error):  # the remedy below would not help
                raise
            raise DataError(f"{searched}\n{error}\n{_remedy()}") from error
    raise DataError(f"{searched}\n{_remedy()}")


def _search(folder: Path, name: str) -> tuple[list[AnyPath], str]:
    """Return the four files in ``folder/name`` or ``folder``, and a text that says which are missing ("" if none
    is)."""
    if not folder.is_dir():
        return [], "the folder does not exist"
    found: list[list[Path]] = []
    for place in (folder / name, folder):
        found = [[path for path in _spellings(place, file) if path.is_file()] for file, _ in FILES]
        if any(found):
            break
    missing = [file for (file, _), paths in zip(FILES, found, strict=True) if not paths]
    return [paths[0] for paths in found if paths], f"lacks {', '.join(missing)}" if missing else ""


def _spellings(folder: Path, file: str) -> list[Path]:
    stem, idx = file.rsplit("-idx", 1)
    return [folder / spelling.format(stem=stem, idx=f"idx{idx}") for spelling in _SPELLINGS]


def _remedy() -> str:
    return (
        f"To supply the four files {', '.join(file for file, _ in FILES)} (plain or .gz), put them into one "
        "folder and name it by --data-dir (data_dir=...) or the environment variable XPNET_DATA_DIR; "
        f"or let them be downloaded (download=True, without a data_dir); or use the data set {EMBEDDED!r}, "
        f"which is part of the package (--dataset {EMBEDDED}, dataset={EMBEDDED!r})."
    )
