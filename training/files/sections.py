"""Write and read files of named sections, each with arrays and plain values by name: one safetensors file, no pickle.

The array ``W1`` of section ``params`` is the file's array ``params/W1``. The plain values are JSON in the header, next
to a SHA-256 of them and of all arrays: a file that was changed by a bit is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from training.files import json_text
from training.files.arrays import open_arrays
from training.files.durable import write_atomically
from training.files.errors import FileError, clipped

Sections = dict[str, dict[str, Any]]

KEY = "xpnet sections"
"""The key of the header's metadata that holds the values."""

FORMAT = 1

_FLOAT = "__float__"  # JSON has no NaN and no infinity


def write_sections(file: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Write sections atomically: even after a power cut the file is the old one or the new one.

    Args:
        file: ``*.safetensors``.
        sections: NumPy arrays, or values that JSON can hold (tuples come back as lists), by section and name.

    Raises:
        TypeError: a value is of another kind.
        OSError: the file cannot be written; its old content is unchanged.
    """
    from safetensors.numpy import save

    arrays: dict[str, numpy.ndarray] = {}
    values: dict[str, dict[str, Any]] = {}
    for section, entries in sections.items():
        values[section] = {}
        for name, value in entries.items():
            if isinstance(value, (numpy.ndarray, numpy.generic)):
                arrays[f"{section}/{name}"] = numpy.asarray(value, order="C")
            else:
                values[section][name] = _encoded(value, f"{section}/{name}")
    header = {"format": FORMAT, "sha256": _digest(arrays, values), "values": values}
    write_atomically(file, save(arrays, {KEY: json_text.dump(header)}))


def read_sections(file: Path) -> Sections:
    """Return what ``write_sections`` wrote.

    Raises:
        FileError: the file is damaged, truncated, or of another kind.
        OSError: it cannot be read.
    """
    with open_arrays(file) as opened:
        header = _header(getattr(opened, "metadata", {}))
        arrays = {name: opened.read(name) for name in opened.headers}
        values = header["values"]
        if _digest(arrays, values) != header.get("sha256"):
            raise FileError("its content does not have the SHA-256 that its header gives: it was damaged")
        sections: Sections = {section: _decoded(entries) for section, entries in values.items()}
        for path, array in arrays.items():
            section, _, name = path.partition("/")
            sections.setdefault(section, {})[name] = array
        return sections


def _header(metadata: Mapping[str, str]) -> dict[str, Any]:
    if KEY not in metadata:
        raise FileError(f"its header has no {KEY!r}: it was not written as a checkpoint of xpnet")
    header = json_text.parse(metadata[KEY])
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        given = header.get("format") if isinstance(header, dict) else header
        raise FileError(f"its format is {clipped(given)}, expected {FORMAT}: another version of xpnet wrote it")
    values = header.get("values")
    if not isinstance(values, dict) or not all(isinstance(entries, dict) for entries in values.values()):
        raise FileError(f"its values are {clipped(values)}, expected an object of objects")
    return header


def _digest(arrays: Mapping[str, numpy.ndarray], values: Any) -> str:
    found = hashlib.sha256(json_text.dump(values).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"\n{name} {array.dtype.str} {list(array.shape)}\n".encode())
        if array.size:
            found.update(memoryview(array.reshape(-1).view(numpy.uint8)))  # type: ignore[arg-type]
    return found.hexdigest()


def _encoded(value: Any, place: str) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: repr(float(value))}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _encoded(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encoded(item, place) for item in value]
    raise TypeError(f"{place} is {type(value).__name__}: expected an array, or what JSON can hold")


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_FLOAT} and isinstance(value[_FLOAT], str):
            return float(value[_FLOAT])
        return {key: _decoded(item) for key, item in value.items()}
    return [_decoded(item) for item in value] if isinstance(value, list) else value
