"""MNIST as in the book's ``dataset.mnist``, from the files that ``training.data.load`` finds or downloads."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy

from backend import asarray
from layers.compat.book import np
from training.data import load
from training.data.download import cache_dir
from training.data.sources import FILES, INPUT_DIM, SOURCES
from training.models.saving import write_atomically

__all__ = [
    "dataset_dir",
    "download_mnist",
    "img_dim",
    "img_size",
    "init_mnist",
    "key_file",
    "load_mnist",
    "np",
    "save_file",
    "test_num",
    "train_num",
    "url_base",
]

url_base = SOURCES["mnist"].mirrors[0]
key_file = {
    key: f"{name}.gz"
    for key, (name, _) in zip(("train_img", "train_label", "test_img", "test_label"), FILES, strict=True)
}
dataset_dir = str(cache_dir() / "mnist")
"""The folder for downloaded files; see ``training.data.load`` for the others."""

save_file = f"{dataset_dir}/mnist.pkl"
"""The file that ``init_mnist`` writes. Nothing here reads it."""

train_num = 60000
test_num = 10000
img_dim = INPUT_DIM
img_size = 784


def load_mnist(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return the 60,000 training and 10,000 test digits, on the active device.

    Args:
        normalize: return pixels as float32 from 0 to 1, else as uint8 from 0 to 255.
        flatten: return images as (N, 784), else as (N, 1, 28, 28).
        one_hot_label: return labels as float64 one-hot rows (N, 10), else as uint8 (N,).

    Returns:
        ``(x_train, t_train), (x_test, t_test)``.

    Raises:
        DataError, OSError: as ``training.data.load``.
    """
    data = load("mnist", download=True)

    def prepare(images: numpy.ndarray, labels: numpy.ndarray) -> tuple[Any, Any]:
        x = images.astype(numpy.float32) if normalize else images.copy()  # a Dataset's arrays are read-only
        if normalize:
            x /= 255.0
        x = x.reshape(len(x), img_size) if flatten else x
        return asarray(x), asarray(numpy.eye(10)[labels] if one_hot_label else labels.copy())

    return prepare(data.train_images, data.train_labels), prepare(data.test_images, data.test_labels)


def download_mnist() -> None:
    """Download the four files unless they exist, and check them.

    Raises:
        DataError, OSError: as ``training.data.load``.
    """
    load("mnist", download=True)


def init_mnist() -> None:
    """Write the digits to ``save_file``: a pickled dictionary of uint8 arrays by the names in ``key_file``.

    Raises:
        DataError, OSError: as ``training.data.load``, or the file cannot be written.
    """
    data = load("mnist", download=True)
    arrays = {
        "train_img": data.train_images.reshape(-1, img_size),
        "train_label": data.train_labels,
        "test_img": data.test_images.reshape(-1, img_size),
        "test_label": data.test_labels,
    }
    Path(dataset_dir).mkdir(parents=True, exist_ok=True)
    write_atomically(Path(save_file), pickle.dumps(arrays, -1))
