"""``pickle`` that writes host arrays: the replacement of ``import pickle`` for a GPU.

``dump`` and ``dumps`` write device arrays as NumPy arrays, so that a file can be read without a GPU and without xpnet.
``load`` and ``loads`` copy arrays to the active device, in dictionaries, lists, tuples and attributes of objects. On
the CPU all are the standard library's. As always with pickle, a file of unknown origin may run any code.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy

from backend import asarray, asnumpy, current_device

__all__ = pickle.__all__


def __getattr__(name: str) -> Any:
    return getattr(pickle, name)


class Pickler(pickle.Pickler):
    """A pickler that writes device arrays as NumPy arrays."""

    def reducer_override(self, obj: Any) -> Any:
        """Reduce a device array as a NumPy array."""
        if hasattr(obj, "__cuda_array_interface__"):
            return asnumpy(obj).__reduce__()
        return NotImplemented


class Unpickler(pickle.Unpickler):
    """An unpickler that copies arrays to the active device."""

    def load(self) -> Any:
        """Read an object."""
        return _on_device(super().load())


def dump(obj: Any, file: Any, protocol: int | None = None, **options: Any) -> None:
    """Write ``obj`` to an open binary file."""
    Pickler(file, protocol, **options).dump(obj)


def dumps(obj: Any, protocol: int | None = None, **options: Any) -> bytes:
    """Return the bytes that ``dump`` writes."""
    file = io.BytesIO()
    dump(obj, file, protocol, **options)
    return file.getvalue()


def load(file: Any, **options: Any) -> Any:
    """Read an object from an open binary file, its arrays on the active device."""
    return Unpickler(file, **options).load()


def loads(data: Any, **options: Any) -> Any:
    """Read an object from bytes, its arrays on the active device."""
    return load(io.BytesIO(data), **options)


def _on_device(value: Any) -> Any:
    return value if current_device().kind == "cpu" else _moved(value, {})


def _moved(value: Any, seen: dict[int, Any]) -> Any:
    """Return ``value`` with its numeric arrays on the active device; containers are changed in place, each array is
    copied once."""
    if id(value) in seen:
        return seen[id(value)][1]
    result = value
    if isinstance(value, numpy.ndarray):
        result = asarray(value) if value.dtype.kind in "biuf" else value
    elif isinstance(value, tuple):
        parts = [_moved(part, seen) for part in value]
        result = type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    seen[id(value)] = value, result  # with the value: its id must not be reused
    if isinstance(value, dict):
        for key in value:
            value[key] = _moved(value[key], seen)
    elif isinstance(value, list):
        value[:] = [_moved(part, seen) for part in value]
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        for name, part in vars(value).items():
            vars(value)[name] = _moved(part, seen)
    return result
