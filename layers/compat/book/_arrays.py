"""What book code hands to a function, as arrays that kernels take."""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module, xp


def as_array(x: Any) -> Any:
    """``x`` as an array: numbers, NumPy's scalars and lists become arrays of the active device, arrays stay."""
    return x if hasattr(x, "dtype") and not isinstance(x, numpy.generic) else xp.asarray(x)


def as_floating(x: Any) -> Any:
    """``x`` as a floating array: see ``as_array``; integers become float64, as NumPy makes them."""
    return in_common_dtype(x)[0]


def in_common_dtype(*values: Any) -> list[Any]:
    """Return all values as floating arrays of the dtype in which NumPy would compute with them.

    Integers alone make float64. A Python number takes the dtype of the arrays; everything else widens it.

    Raises:
        TypeError: a value is not numeric, or host and device arrays are mixed.
    """
    arrays = [as_array(value) for value in values]
    try:
        array_module(*arrays)
    except TypeError as error:
        remedy = "a program of the book takes its np from training.compat.book, or computes with XPNET_DEVICE=cpu"
        raise TypeError(f"{error}; {remedy}") from None
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) == 1 and arrays[0].dtype.kind == "f":
        return arrays
    for dtype in dtypes:
        if dtype.kind not in "biuf":
            raise TypeError(f"numbers were expected, got an array of {dtype}")
    kinds = zip(values, arrays, strict=True)
    dtype = numpy.result_type(*(v if isinstance(v, (bool, int, float)) else array.dtype for v, array in kinds))
    if dtype.kind != "f":
        dtype = numpy.dtype("float64")
    return [array.astype(dtype, copy=False) for array in arrays]


def as_vector(value: Any, size: int, what: str) -> Any:
    """Return a floating array as (size,): itself, or one that broadcasts to a row of that many columns.

    Raises:
        ValueError: it does not broadcast to (1, size).
    """
    if value.shape == (size,):
        return value
    if value.ndim > 2 or value.shape not in ((), (1,), (1, 1), (1, size)):
        raise ValueError(f"{what} must be one number or have shape {(size,)}, got {value.shape}")
    return array_module(value).broadcast_to(value, (1, size)).reshape(size)
