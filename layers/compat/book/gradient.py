"""The numerical gradients of the book's ``common.gradient``: central differences with a step of 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from backend import array_module, asnumpy
from backend.types import Array
from layers.compat.book import np
from layers.numerical import one_number, require_floating, require_function

__all__ = ["np", "numerical_gradient", "numerical_gradient_2d"]

STEP = 1e-4


def numerical_gradient(f: Callable[[Any], Any], x: Any) -> Array:
    """Return (f(x + h) - f(x - h)) / 2h for each element of ``x``, with h = 1e-4.

    ``layers.numerical_gradient`` has a larger step for float32, where the result for 1e-4 is mostly rounding error.

    Args:
        f: a function of an array that returns one number. ``x`` itself is changed for it and restored exactly, also
            when ``f`` raises, so ``f`` may ignore its argument and read ``x``.
        x: a floating array of any shape.

    Returns:
        The gradient, shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` is not a floating array (the book returns 0 for integers), or ``f`` does not return one number.
        ValueError: ``x`` is read-only.
    """
    require_floating(x)
    require_function(f)
    gradient, original = array_module(x).zeros_like(x), x.copy()
    values = asnumpy(original)
    try:
        for index in numpy.ndindex(x.shape):
            x[index] = values[index] + STEP
            above = one_number(f(x))
            x[index] = values[index] - STEP
            gradient[index] = (above - one_number(f(x))) / (2 * STEP)
            x[index] = values[index]
    finally:
        x[...] = original
    return gradient


def numerical_gradient_2d(f: Callable[[Any], Any], X: Any) -> Array:
    """Return ``numerical_gradient`` of each row of ``X`` (N, D), where ``f`` is a function of one row.

    A vector counts as one row. Arguments and errors are those of ``numerical_gradient``.
    """
    require_floating(X)
    if X.ndim == 1:
        return numerical_gradient(f, X)
    gradient = array_module(X).zeros_like(X)
    for row, into in zip(X, gradient, strict=True):  # views
        into[...] = numerical_gradient(f, row)
    return gradient


_numerical_gradient_1d = numerical_gradient  # the book's name for vectors
