"""Arrays by name from an ``.npz`` or a ``.safetensors`` file: first what the file says of them, then the arrays."""

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
"""The name of the config among the texts of a safetensors header."""

SUFFIXES = (".npz", ".safetensors")


class ArrayReader(Protocol):
    """The arrays of an open file.

    Attributes:
        headers: shape and dtype of each array, by name.
    """

    headers: dict[str, Header]

    def read(self, name: str) -> numpy.ndarray:
        """An array of the file."""


@contextmanager
def open_arrays(file: Path) -> Iterator[ArrayReader]:
    """Open a file of arrays; every ``FileError`` inside the ``with`` gets the file's name.

    Raises:
        ValueError: the name ends otherwise than ``.npz`` or ``.safetensors``.
        FileError: the file is damaged, or its arrays do not fit into the memory.
        OSError: it cannot be read.
    """
    kind = suffix(file)
    if not file.is_file():  # a pipe would be waited for, a device never ends
        raise FileNotFoundError(f"there is no file {file}")
    try:
        with file.open("rb") as stream:
            yield NpzReader(stream) if kind == ".npz" else SafetensorsReader(stream)
    except FileError as error:
        raise FileError(f"{file} is no {kind} file of arrays: {error}") from error
    except MemoryError as error:
        raise FileError(f"{file} has arrays that do not fit into the memory: {error}") from error


def config_of(arrays: ArrayReader) -> Any:
    """Return the config that was saved with the arrays; None where there is none.

    Raises:
        FileError: it is not JSON.
    """
    metadata: Mapping[str, str] = getattr(arrays, "metadata", {})
    return json_text.parse(metadata[CONFIG]) if CONFIG in metadata else None


def suffix(file: Path) -> str:
    """How the file's name ends.

    Raises:
        ValueError: in none of ``SUFFIXES``.
    """
    if file.suffix not in SUFFIXES:
        raise ValueError(f"parameters are saved as .npz or .safetensors, not {file.name!r}")
    return file.suffix
