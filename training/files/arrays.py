"""Read named arrays from an ``.npz`` or ``.safetensors`` file: first their headers, then the arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy

from training.files import json_text
from training.files.errors import FileError
from training.files.headers import Header
from training.files.npz import NpzReader
from training.files.safetensors import SafetensorsReader

CONFIG = "xpnet"
"""The key of the config in the metadata of a safetensors file."""

SUFFIXES = (".npz", ".safetensors")


class ArrayReader(Protocol):
    """The arrays of an open file.

    Attributes:
        headers: shape and dtype of each array, by name.
    """

    headers: dict[str, Header]

    def read(self, name: str) -> numpy.ndarray:
        """Return an array of the file."""


@contextmanager
def open_arrays(file: Path, texts: bool = False) -> Iterator[ArrayReader]:
    """Open a file of arrays; every ``FileError`` inside the ``with`` gets the file's name.

    Args:
        file: its name ends in one of ``SUFFIXES``.
        texts: read arrays of texts in an ``.npz``, too.

    Raises:
        ValueError: the name does not end in ``.npz`` or ``.safetensors``.
        FileError: the file is damaged, or its arrays do not fit into memory.
        OSError: it cannot be read.
    """
    kind = suffix(file)
    if not file.is_file():  # reading would wait for a pipe, and never end on a device
        raise FileNotFoundError(f"there is no file {file}")
    try:
        with file.open("rb") as stream:
            yield NpzReader(stream, texts) if kind == ".npz" else SafetensorsReader(stream)
    except FileError as error:
        raise FileError(f"{file} is not a {kind} file of arrays: {error}") from error
    except MemoryError as error:
        raise FileError(f"{file} has arrays that do not fit into memory: {error}") from error


def config_of(arrays: ArrayReader) -> Any:
    """Return the config that was saved with the arrays; None if there is none.

    Raises:
        FileError: it is not JSON.
    """
    metadata: Mapping[str, str] = getattr(arrays, "metadata", {})
    return json_text.parse(metadata[CONFIG]) if CONFIG in metadata else None


def suffix(file: Path) -> str:
    """Return the suffix of a file's name.

    Raises:
        ValueError: it is not one of ``SUFFIXES``.
    """
    if file.suffix not in SUFFIXES:
        raise ValueError(f"expected a file name that ends in .npz or .safetensors, got {file.name!r}")
    return file.suffix
