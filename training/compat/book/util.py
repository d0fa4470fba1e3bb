"""The book's ``common.util``: curves, shuffling, and im2col."""

from __future__ import annotations

from typing import Any

import numpy

from backend import asarray, asnumpy
from backend.types import Array
from layers.compat.book import np
from layers.compat.book.functions import col2im, im2col

__all__ = ["col2im", "conv_output_size", "im2col", "np", "shuffle_dataset", "smooth_curve"]

WINDOW = 11


def smooth_curve(x: Array) -> Any:
    """Return the running mean of the values ``x``, weighted by a Kaiser window of 11 values with β = 2.

    Args:
        x: a sequence of at least 11 numbers, or a vector.

    Returns:
        A float64 vector of the same length, on the host for a sequence and on the device of ``x`` for an array. Both
        ends are mirrored: the first number stands once at its end, the last twice.

    Raises:
        ValueError: there are fewer than 11 numbers.
    """
    values = asnumpy(x) if hasattr(x, "ndim") else numpy.array([float(value) for value in x])
    if values.ndim != 1 or len(values) < WINDOW:
        raise ValueError(f"smooth_curve needs a vector of at least {WINDOW} numbers, got shape {values.shape}")
    before, behind = values[WINDOW - 1 : 0 : -1], values[:-WINDOW:-1]
    padded = numpy.concatenate((before, values, behind))
    weights = numpy.kaiser(WINDOW, 2)
    smooth = numpy.convolve(weights / weights.sum(), padded, mode="valid")[WINDOW // 2 : -(WINDOW // 2)]
    return asarray(smooth) if hasattr(x, "__cuda_array_interface__") else smooth


def shuffle_dataset(x: Array, t: Array) -> tuple[Any, Any]:
    """Return samples ``x`` (N, …) and labels ``t`` (N, …) in one random order, drawn by ``numpy.random``.

    Raises:
        ValueError: the numbers of samples and labels differ.
    """
    if len(x) != len(t):
        raise ValueError(f"shuffle_dataset needs as many labels as samples, got {len(x)} samples and {len(t)} labels")
    order = np.random.permutation(len(x))
    return x[order], t[order]


def conv_output_size(input_size: int, filter_size: int, stride: int = 1, pad: int = 0) -> float:
    """Return (input_size + 2·pad - filter_size) / stride + 1, which is a float."""
    return (input_size + 2 * pad - filter_size) / stride + 1
