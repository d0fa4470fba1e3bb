"""Read what the course's functions take: arrays of any numbers, and dictionaries of parameters."""

from __future__ import annotations

from typing import Any

import numpy

from backend import is_array, require_active, require_same_device, xp
from backend.types import Array
from layers.compat._options import dictionary

Cache = tuple[Any, ...]

_FLOATS = ("float16", "float32", "float64")

_KEYS = (
    *("stride", "pad", "pool_height", "pool_width"),
    *("mode", "p", "seed", "eps", "momentum", "running_mean", "running_var"),
)
"""Keys of all layers' dictionaries. A key of another layer is allowed, since assignments share dictionaries
(``{"mode": "train"}`` also for layers that are the same in training and evaluation).
"""


def parameters(
    name: str,
    given: Any,
    needed: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    refused: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return a layer's dictionary after checking that it has the keys that the layer needs, and only keys of the
    course.

    Args:
        refused: keys of other layers that would have a meaning here, but are not supported.

    Raises:
        TypeError: it is not a dictionary.
        ValueError: a key is missing, unknown or refused.
    """
    dictionary(name, given, needed, optional, [key for key in _KEYS if key not in refused])
    return given


def operands(owner: str, **given: Any) -> tuple[Any, ...]:
    """Return the given arrays, lists and numbers as arrays of one floating dtype on the active device.

    The dtype is the widest among the floating arrays; integers and lists take it. Without floating arrays it is
    float64.

    Raises:
        TypeError: an argument does not hold real numbers, host and device arrays are mixed, or the arrays are not on
        the
            active device.
    """
    arrays = {name: _as_array(owner, name, value) for name, value in given.items()}
    for name, array in arrays.items():
        kind = getattr(array.dtype, "kind", "")
        if kind not in "iuf" or (kind == "f" and array.dtype.name not in _FLOATS):
            raise TypeError(
                f"{owner} needs {name} as numbers (integers, float16, float32 or float64), got {array.dtype}"
            )
    require_same_device(*arrays.values())
    require_active(next(iter(arrays.values())))
    strong = (array for name, array in arrays.items() if array is given[name] and array.dtype.kind == "f")
    floats = [numpy.dtype(array.dtype.name) for array in strong]
    dtype = numpy.result_type(*floats) if floats else numpy.dtype("float64")
    return tuple(array.astype(dtype, copy=False) for array in arrays.values())


def gradient(owner: str, dout: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return ``dout`` as the gradient of an output of that shape and dtype.

    Raises:
        TypeError: it does not hold real numbers, or is not on the active device.
        ValueError: its shape differs from the output's.
    """
    (dout,) = operands(owner, dout=dout)
    if dout.shape != shape:
        raise ValueError(f"{owner} needs the gradient of an output {shape}, got {dout.shape}")
    return dout.astype(dtype, copy=False)


def shapes(*arrays: Array) -> str:
    """Return the arrays' shapes as text for an error."""
    return ", ".join(str(array.shape) for array in arrays)


def as_labels(owner: str, y: Array) -> Array:
    """Return class labels as an array; a list becomes an array on the active device."""
    return _as_array(owner, "y", y)


def _as_array(owner: str, name: str, value: Any) -> Array:
    if is_array(value) and not isinstance(value, numpy.generic):
        return value
    try:
        return xp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{owner} needs {name} as an array of numbers, got {type(value).__name__} {value!r}") from error
