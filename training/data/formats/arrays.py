"""Read inputs and targets from arrays in ``.npz`` and ``.npy`` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy

from training.data.collection import Data, Samples, check_finite
from training.data.formats.parts import part_in
from training.data.idx import DataError
from training.data.inputs import AnyInputs, MappedInputs, is_mapped
from training.data.targets import classify
from training.files.arrays import open_arrays
from training.files.printable import printable

INPUTS = ("x", "images", "image", "data", "inputs", "features")
TARGETS = ("y", "t", "labels", "label", "targets", "target")
_CLASSES = ("classes", "class_names", "names")


def open_npz(file: Path, kind: str | None) -> Data:
    """Open an ``.npz`` with x and y, or x_train, y_train, x_val, x_test and so on.

    Raises:
        DataError: arrays are missing, or do not fit together.
        FileError: the file is damaged.
        OSError: it cannot be read.
    """
    with open_arrays(file, texts=True) as opened:
        arrays = {name: opened.read(name) for name in opened.headers}
    return _paired(printable(file), file.stem, arrays, kind)


def npy_files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold inputs or targets by their names, such as ``x_train.npy``."""
    return sorted(file for file in folder.glob("*.npy") if part_in(file.stem)[1] in (*INPUTS, *TARGETS))


def open_npy(folder: Path, files: list[Path], kind: str | None) -> Data:
    """Open pairs of ``.npy`` files: ``x.npy`` and ``y.npy``, or ``x_train.npy`` and so on. Inputs stay on the disk.

    Raises:
        DataError: a file is damaged or missing, or arrays do not fit together.
        OSError: one cannot be read.
    """
    arrays = {}
    for file in files:
        is_target = part_in(file.stem)[1] in TARGETS
        try:
            mapped = numpy.lib.format.open_memmap(file, mode="r")  # refuses objects, which would have to be unpickled
            arrays[file.stem] = numpy.array(mapped) if is_target else mapped
        except (ValueError, EOFError) as error:
            raise DataError(f"{printable(file)}: expected an array of numbers or texts: {error}") from error
    return _paired(printable(folder), folder.resolve().name, arrays, kind)


def _paired(where: str, name: str, arrays: Mapping[str, numpy.ndarray], kind: str | None) -> Data:
    inputs: dict[str, numpy.ndarray] = {}
    targets: dict[str, numpy.ndarray] = {}
    names = None
    for key, array in arrays.items():
        part, rest = part_in(key)
        if rest in INPUTS:
            inputs[part] = array
        elif rest in TARGETS:
            targets[part] = array
        elif rest in _CLASSES and array.ndim == 1 and array.dtype.kind == "U":
            names = array.tolist()
    if "train" not in inputs or inputs.keys() != targets.keys():
        raise DataError(
            f"{where}: expected arrays x and y, or x_train, y_train, x_test, y_test (images and labels are understood, "
            f"too), got {', '.join(map(printable, list(arrays)[:12])) or 'none'}"
        )
    shape = inputs["train"].shape[1:]
    for part, x in inputs.items():
        if x.shape[1:] != shape or x.ndim < 2 or 0 in x.shape:
            raise DataError(f"{where}: expected {part} inputs (N, {', '.join(map(str, shape))}), got {list(x.shape)}")
        if len(x) != len(targets[part]) or not targets[part].ndim:
            raise DataError(
                f"{where}: expected as many {part} targets as inputs, {len(x):,}, got {list(targets[part].shape)}"
            )
    kind, classes, known = classify(where, targets, kind, names)
    samples = {part: Samples(_as_inputs(where, part, x), known[part]) for part, x in inputs.items()}
    return Data.of(name, kind, classes, samples)


def _as_inputs(where: str, part: str, x: numpy.ndarray) -> AnyInputs:
    """Return images as (N, C, H, W), rows as (N, D), in a dtype that can be trained on; the disk's stay there."""
    if x.dtype.kind not in "iubf" or x.dtype.itemsize > 8:
        raise DataError(f"{where}: expected inputs of numbers, got {x.dtype}")
    dtype = x.dtype.newbyteorder("=") if x.dtype.kind == "f" or x.dtype == numpy.uint8 else numpy.dtype("float32")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3, 4):
        x = x.transpose(0, 3, 1, 2)
    check_finite(where, part, x)
    if dtype == x.dtype:
        return x
    return MappedInputs(x, dtype) if is_mapped(x) else x.astype(dtype)
