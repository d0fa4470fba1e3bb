"""Data sets by name, the IDX format, and a loader of shuffled batches."""

from training.data.datasets import NAMES, Dataset, load, load_mnist
from training.data.idx import DataError, read_idx, read_labelled_images, write_idx
from training.data.loader import Loader
from training.data.sources import EMBEDDED

__all__ = [
    "EMBEDDED",
    "NAMES",
    "DataError",
    "Dataset",
    "Loader",
    "load",
    "load_mnist",
    "read_idx",
    "read_labelled_images",
    "write_idx",
]
