"""Save parameters to files and load them: ``.npz`` (NumPy's) and ``.safetensors`` (arrays with a header, no code)."""

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
    """Write arrays by name, atomically: even after a power cut the file is the old one or the new one, never a part.

    Args:
        file: ``*.npz`` or ``*.safetensors``.
        config: anything JSON can hold; kept in the header of a ``.safetensors``, left out of an ``.npz``.

    Raises:
        ValueError: the name has another ending.
        OSError: the file cannot be written.
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
    """Return the arrays of a file, by name.

    Raises:
        ValueError: the name ends in neither ``.npz`` nor ``.safetensors``, or the file is damaged.
        OSError: the file cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy
        >>> from training.models.saving import load_arrays, save_arrays
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_arrays(Path(folder, "params.npz"), {"W1": numpy.ones((2, 3))})
        ...     print(load_arrays(Path(folder, "params.npz"))["W1"].shape)
        (2, 3)
    """
    with open_arrays(Path(file)) as opened:
        return {name: opened.read(name) for name in opened.headers}


def load_fitting(
    file: str | Path,
    wanted: Mapping[str, Any],
    optional: set[str] = frozenset(),  # type: ignore[assignment]
    partly: bool = False,
) -> dict[str, numpy.ndarray]:
    """Return the arrays of a file by name, which must have the names and shapes of ``wanted``, in its dtypes.

    Names, shapes and dtypes are checked before an array is read.

    Args:
        wanted: arrays by name, on any device.
        optional: names that the file may lack.
        partly: leave other arrays of the file out, which otherwise are an error.

    Raises:
        ValueError: as ``load_arrays``; or a name, a shape or a dtype is not as wanted, or a number is too large for its
            dtype.
        OSError: the file cannot be read.
    """
    with open_arrays(Path(file)) as opened:
        headers = opened.headers
        if partly:
            headers = {name: header for name, header in headers.items() if name in wanted}
        check_fit(file, headers, {name: array.shape for name, array in wanted.items()}, optional)
        arrays = {}
        for name in headers:
            given, dtype = opened.read(name), wanted[name].dtype
            with numpy.errstate(all="ignore"):
                arrays[name] = given.astype(dtype, copy=False)
            if numpy.count_nonzero(numpy.isinf(arrays[name])) > numpy.count_nonzero(numpy.isinf(given)):
                raise ValueError(f"{file} does not fit the network: {name} has numbers too large for {dtype}")
        return arrays


def load_config(file: str | Path) -> Any:
    """Return the config that ``save_arrays`` kept in a ``.safetensors``; None if there is none.

    Raises:
        ValueError: the file is not one of ``save_arrays``.
        OSError: the file cannot be read.
    """
    with open_arrays(Path(file)) as opened:
        return config_of(opened)


def check_fit(
    file: str | Path,
    arrays: Mapping[str, numpy.ndarray | Header],
    shapes: Mapping[str, tuple[int, ...]],
    optional: set[str] = frozenset(),  # type: ignore[assignment]
) -> None:
    """Check that ``arrays``, or their headers, have the names and shapes that a network needs.

    Raises:
        ValueError: with the names that are missing or unexpected, or the shape or dtype that was expected.
    """
    missing = [name for name in shapes if name not in arrays and name not in optional]
    unknown = [name for name in arrays if name not in shapes]
    if missing or unknown:
        kinds = (("missing", missing), ("unexpected", unknown))
        found = "; ".join(f"{kind} parameters: {_listed(names)}" for kind, names in kinds if names)
        raise ValueError(f"{file} does not fit the network: {found}")
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{file} does not fit the network: expected {name} of {shapes[name]}, got {array.shape}")
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{file} does not fit the network: expected {name} as numbers, got {array.dtype}")


def _listed(names: list[str]) -> str:
    """Return the names, or some and how many more."""
    shown = ", ".join(clipped(name) for name in names[:5])
    return f"{shown}, and {len(names) - 5} more" if len(names) > 5 else shown
