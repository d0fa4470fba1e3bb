"""Data sets by name and by path, the IDX format, and a loader of shuffled batches."""

from training.data.collection import Data, Samples
from training.data.datasets import NAMES, Dataset, load, load_mnist
from training.data.idx import DataError, read_idx, read_labelled_images, write_idx
from training.data.loader import Loader
from training.data.normalization import Normalization
from training.data.opening import open  # noqa: A004  (called training.data.open)
from training.data.sources import EMBEDDED

__all__ = [
    "EMBEDDED",
    "NAMES",
    "Data",
    "DataError",
    "Dataset",
    "Loader",
    "Normalization",
    "Samples",
    "load",
    "load_mnist",
    "open",
    "read_idx",
    "read_labelled_images",
    "write_idx",
]
