"""Convert the arguments of book code to arrays that kernels take."""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module, xp
from backend.types import Array


def as_array(x: Any) -> Array:
    """Return ``x`` as an array: numbers, NumPy's scalars and lists become arrays on the active device."""
    return x if hasattr(x, "dtype") and not isinstance(x, numpy.generic) else xp.asarray(x)


def as_floating(x: Any) -> Array:
    """Return ``x`` as a floating array: see ``as_array``; integers become float64, as in NumPy."""
    return in_common_dtype(x)[0]


def in_common_dtype(*values: Any) -> list[Any]:
    """Return all values as floating arrays of the dtype that NumPy would compute in.

    Python numbers take the dtype of the arrays; integers alone become float64.

    Raises:
        TypeError: a value is not numeric, or host and device arrays are mixed.
    """
    arrays = [as_array(value) for value in values]
    try:
        array_module(*arrays)
    except TypeError as error:
        remedy = "import np from training.compat.book in the program, or run it with XPNET_DEVICE=cpu"
        raise TypeError(f"{error}; {remedy}") from None
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) == 1 and arrays[0].dtype.kind == "f":
        return arrays
    for dtype in dtypes:
        if dtype.kind not in "biuf":
            raise TypeError(f"expected numbers, got an array of {dtype}")
    kinds = zip(values, arrays, strict=True)
    dtype = numpy.result_type(*(v if isinstance(v, (bool, int, float)) else array.dtype for v, array in kinds))
    if dtype.kind != "f":
        dtype = numpy.dtype("float64")
    return [array.astype(dtype, copy=False) for array in arrays]


def as_vector(value: Any, size: int, name: str) -> Array:
    """Return a floating array in the shape (size,), broadcast if needed.

    Raises:
        ValueError: it does not broadcast to (1, size).
    """
    if value.shape == (size,):
        return value
    if value.ndim > 2 or value.shape not in ((), (1,), (1, 1), (1, size)):
        raise ValueError(f"{name} must be one number or have shape {(size,)}, got {value.shape}")
    return array_module(value).broadcast_to(value, (1, size)).reshape(size)
