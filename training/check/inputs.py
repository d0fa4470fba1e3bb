"""The numbers that the operations of ``xpnet check`` are given."""

from __future__ import annotations

import numpy

from backend import asarray
from backend.types import Array


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0, ties: bool = False) -> Array:
    """Return numbers around 0 on the active device, the same on every device; with ``ties`` many of them are equal."""
    values = numpy.random.default_rng(seed).standard_normal(shape)
    return asarray((numpy.round(values) if ties else values).astype(dtype))
