"""Convert numbers of other programs to the dtype of a network."""

from __future__ import annotations

import numpy

from training.files import clipped


def converted(name: str, array: numpy.ndarray, dtype: numpy.dtype) -> numpy.ndarray:
    """Return an array in another dtype.

    Raises:
        ValueError: it has numbers too large for it; the message has the array's ``name``.
    """
    with numpy.errstate(over="ignore"):
        result = array.astype(dtype)
    if numpy.isinf(result).sum() > numpy.isinf(array).sum():
        raise ValueError(f"{clipped(name)} has numbers too large for {dtype}")
    return result
