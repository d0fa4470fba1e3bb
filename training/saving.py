"""Parameters as files: ``.npz`` (NumPy's) and ``.safetensors`` (arrays by name with a header, no code in it)."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from training.files.durable import write_atomically

_CONFIG = "xpnet"  # the key of the config in a safetensors header


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
    if _kind(file) == ".npz":
        stream = io.BytesIO()
        numpy.savez(stream, **arrays)  # type: ignore[arg-type]
        write_atomically(file, stream.getbuffer())
        return
    from safetensors.numpy import save

    contiguous = {name: numpy.asarray(array, order="C") for name, array in arrays.items()}  # keeps 0-d arrays 0-d
    write_atomically(file, save(contiguous, None if config is None else {_CONFIG: json.dumps(config)}))


def load_arrays(file: str | Path) -> dict[str, numpy.ndarray]:
    """The arrays of a file, by name.

    Raises:
        ValueError: the name ends otherwise than ``.npz`` or ``.safetensors``, or the file is damaged.
        OSError: it cannot be read.
    """
    file = Path(file)
    kind = _kind(file)
    _must_be_file(file)
    content = file.read_bytes()
    try:
        if kind == ".npz":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return {name.removesuffix(".npy"): _read_array(archive, name) for name in archive.namelist()}
        from safetensors.numpy import load

        return load(content)
    except Exception as error:  # reading succeeded: whatever a decoder raises, the content is to blame
        raise ValueError(f"{file} is no {kind} file of arrays: {error}") from error


def load_config(file: str | Path) -> Any:
    """The config that :func:`save_arrays` kept in a ``.safetensors``; None where there is none.

    Raises:
        ValueError: it is no such file.
        OSError: it cannot be read.
    """
    file = Path(file)
    if _kind(file) == ".npz":
        return None
    _must_be_file(file)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
        return json.loads(metadata[_CONFIG]) if _CONFIG in metadata else None
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{file} is no .safetensors file of ours: {error}") from error


def check_fit(
    file: str | Path,
    arrays: Mapping[str, numpy.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    optional: set[str] = frozenset(),  # type: ignore[assignment]
) -> None:
    """Raises a ValueError unless ``arrays`` have the names and shapes that a network needs."""
    missing = [name for name in shapes if name not in arrays and name not in optional]
    unknown = [name for name in arrays if name not in shapes]
    if missing or unknown:
        raise ValueError(
            f"{file} does not fit the network: it lacks {missing or 'nothing'} and has {unknown or 'nothing'} beside"
        )
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{file} does not fit the network: {name} is {array.shape}, need {shapes[name]}")
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{file} does not fit the network: {name} holds {array.dtype}, no numbers")


def _read_array(archive: zipfile.ZipFile, name: str) -> numpy.ndarray:
    with archive.open(name) as member:
        array = numpy.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # the checksum is looked at where a member ends
            raise ValueError(f"{name} is longer than its array")
        return array


def _kind(file: Path) -> str:
    if file.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"parameters are saved as .npz or .safetensors, not {file.name!r}")
    return file.suffix


def _must_be_file(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
