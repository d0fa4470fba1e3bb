"""Parameters as files: ``.npz`` (NumPy's) and ``.safetensors`` (arrays by name with a header, no code in it)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from training.files import clipped, json_text
from training.files.arrays import CONFIG, config_of, open_arrays, suffix
from training.files.durable import write_atomically
from training.files.headers import Header


def save_arrays(file: str | Path, arrays: Mapping[str, numpy.ndarray], config: Any = None) -> None:
    """Writes arrays by name, atomically: the file is the old one or the new one, never a part, after a power cut too.

    Args:
        file: ``*.npz`` or ``*.safetensors``.
        config: anything JSON can hold; kept in the header of a ``.safetensors``, left out of an ``.npz``.

    Raises:
        ValueError: the name ends otherwise.
        OSError: it cannot be written.
    """
    file = Path(file)
    if suffix(file) == ".npz":
        stream = io.BytesIO()
        numpy.savez(stream, **arrays)  # type: ignore[arg-type]
        write_atomically(file, stream.getbuffer())
        return
    from safetensors.numpy import save

    contiguous = {name: numpy.asarray(array, order="C") for name, array in arrays.items()}  # keeps 0-d arrays 0-d
    write_atomically(file, save(contiguous, None if config is None else {CONFIG: json_text.dump(config)}))


def load_arrays(file: str | Path) -> dict[str, numpy.ndarray]:
    """The arrays of a file, by name.

    Raises:
        ValueError: the name ends otherwise than ``.npz`` or ``.safetensors``, or the file is damaged.
        OSError: it cannot be read.
    """
    with open_arrays(Path(file)) as opened:
        return {name: opened.read(name) for name in opened.headers}


def load_fitting(
    file: str | Path,
    wanted: Mapping[str, Any],
    optional: set[str] = frozenset(),  # type: ignore[assignment]
) -> dict[str, numpy.ndarray]:
    """The arrays of a file in place of those that are ``wanted``, in the dtypes of these.

    Names, shapes and dtypes are checked before an array is read.

    Args:
        wanted: arrays by name, on any device.
        optional: names that the file may lack.

    Raises:
        ValueError: as ``load_arrays``; the arrays do not fit those that are wanted, or a number is too large for
            their dtype.
        OSError: it cannot be read.
    """
    with open_arrays(Path(file)) as opened:
        check_fit(file, opened.headers, {name: array.shape for name, array in wanted.items()}, optional)
        arrays = {}
        for name in opened.headers:
            given, dtype = opened.read(name), wanted[name].dtype
            with numpy.errstate(all="ignore"):
                arrays[name] = given.astype(dtype, copy=False)
            if numpy.count_nonzero(numpy.isinf(arrays[name])) > numpy.count_nonzero(numpy.isinf(given)):
                raise ValueError(f"{file} does not fit the network: {name} has numbers too large for {dtype}")
        return arrays


def load_config(file: str | Path) -> Any:
    """The config that ``save_arrays`` kept in a ``.safetensors``; None where there is none.

    Raises:
        ValueError: it is no such file.
        OSError: it cannot be read.
    """
    with open_arrays(Path(file)) as opened:
        return config_of(opened)


def check_fit(
    file: str | Path,
    arrays: Mapping[str, numpy.ndarray | Header],
    shapes: Mapping[str, tuple[int, ...]],
    optional: set[str] = frozenset(),  # type: ignore[assignment]
) -> None:
    """Raises a ValueError unless ``arrays``, or their headers, have the names and shapes that a network needs."""
    missing = [name for name in shapes if name not in arrays and name not in optional]
    unknown = [name for name in arrays if name not in shapes]
    if missing or unknown:
        raise ValueError(
            f"{file} does not fit the network: it lacks {_listed(missing)} and has {_listed(unknown)} beside"
        )
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{file} does not fit the network: {name} is {array.shape}, need {shapes[name]}")
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{file} does not fit the network: {name} holds {array.dtype}, no numbers")


def _listed(names: list[str]) -> str:
    """Some of the names, in words."""
    shown = ", ".join(clipped(name) for name in names[:5])
    return f"{shown}, and {len(names) - 5} more" if len(names) > 5 else shown or "nothing"
