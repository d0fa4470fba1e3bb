"""Read the file that ``save_weights`` of Keras 3 writes: HDF5, with a group for each layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from training.files import FileError, clipped
from training.files.errors import shortened

SUFFIX = ".weights.h5"
DEEPEST, MOST = 32, 20_000
"""The largest depth of nested groups, and the largest number of groups in a file."""

LARGEST_PIECE = 1 << 20
"""By how many bytes a piece that is unpacked as a whole may be larger than the array."""

_NOT_WEIGHTS = ("optimizer", "seed_generator")

Group = dict[str, Any]
"""The variables of a layer in Keras's order: datasets of the open file by their names in it, "layers/dense/vars/0"."""


@contextmanager
def open_weights(file: Path) -> Iterator[dict[str, Group]]:
    """Open a file; yield the variables of each layer that has some by the name of its group, "layers/conv2d_1".

    Nothing is read yet but shapes and dtypes. Links to other files are refused.

    Raises:
        ModuleNotFoundError: the package ``h5py`` is not installed.
        ValueError: the file's name does not end in ``.weights.h5``.
        FileError: it is damaged, or not of Keras 3.
        OSError: it cannot be read.
    """
    if not file.name.endswith(SUFFIX):
        raise ValueError(
            f"expected a file name that ends in {SUFFIX}, as save_weights of Keras 3 writes it, got {file}"
        )
    if not file.is_file():  # reading would wait for a pipe, and never end on a device
        raise FileNotFoundError(f"there is no file {file}")
    h5py = _package()
    file.open("rb").close()  # h5py calls a file that may not be read a damaged one
    try:
        with h5py.File(file, "r") as opened:
            if "layer_names" in opened.attrs:
                raise FileError("it is of Keras 2; remedy: load it in Keras 3 and save_weights again")
            yield dict(_layers(h5py, opened, "", [MOST]))
    except FileError as error:
        raise FileError(f"{file} is no file of Keras's weights: {error}") from error
    except (OSError, RuntimeError, KeyError) as error:  # what h5py says of a damaged file
        raise FileError(f"{file} is damaged, or no HDF5 file: {shortened(error)}") from error


def read(name: str, dataset: Any) -> numpy.ndarray:
    """Return the numbers of a dataset.

    Raises:
        FileError: they are no numbers, lie in another file, or are packed in pieces far larger than they are.
    """
    if dataset.dtype.kind not in "fiu":
        raise FileError(f"expected {clipped(name)} as numbers, got {clipped(str(dataset.dtype))}")
    if dataset.external or dataset.is_virtual:
        raise FileError(f"{clipped(name)} lies in another file")
    piece = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if piece > dataset.nbytes + LARGEST_PIECE:
        raise FileError(f"{clipped(name)} of {dataset.nbytes:,} bytes is packed in pieces of {piece:,}")
    return dataset[...]


def _layers(h5py: Any, group: Any, path: str, left: list[int]) -> Iterator[tuple[str, Group]]:
    left[0] -= 1
    if left[0] < 0 or path.count("/") > DEEPEST:
        raise FileError(f"expected at most {MOST:,} groups, {DEEPEST} in each other")
    for name in group:
        place = f"{path}/{name}" if path else name
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise FileError(f"{clipped(place)} is a link")
        inside = group[name]
        if not isinstance(inside, h5py.Group) or (not path and name in _NOT_WEIGHTS) or name == "seed_generator":
            continue
        if name == "vars":
            variables = _variables(h5py, inside, path)
            if variables:
                yield path, variables
        else:
            yield from _layers(h5py, inside, place, left)


def _variables(h5py: Any, group: Any, path: str) -> Group:
    """Return the datasets "0", "1", … of a group, whose own path is ``path``/vars."""
    variables = {}
    for number in range(len(group)):
        link = group.get(str(number), getlink=True)
        variable = group[str(number)] if isinstance(link, h5py.HardLink) else None
        if not isinstance(variable, h5py.Dataset):
            raise FileError(f"expected the variables of {clipped(path)} as arrays 0, 1, …, got {clipped(list(group))}")
        variables[f"{path}/vars/{number}"] = variable
    return variables


def _package() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        if error.name != "h5py":
            raise
        raise ModuleNotFoundError(
            "Keras's weights need the package h5py; remedy: pip install 'xpnet[keras]'", name="h5py"
        ) from None
    return h5py
