"""Gradients by central differences."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy

from backend import array_module, is_array
from backend.checks import refusal
from backend.types import Array


def numerical_gradient(f: Callable[[Array], Any], x: Array) -> Array:
    """Return the gradient of ``f`` at ``x`` by central differences, one element at a time.

    The step suits the dtype, and the difference is divided by the step that rounding left. The book's function of this
    name, ``layers.compat.book.numerical_gradient``, has a step of 1e-4 for every dtype and divides by 2e-4.

    Args:
        f: a function of an array that returns one number. ``x`` itself is changed for it and restored exactly,
            also when ``f`` raises: ``f`` may ignore its argument and read ``x``.
        x: a floating array of any shape.

    Returns:
        The gradient, shape and dtype of ``x``. The step is 1e-4 (1e-2 for float32, 1e-1 for float16, whose
        rounding would drown a smaller one).

    Raises:
        TypeError: ``x`` is not a floating array (an integer array cannot take a small step), or ``f`` is not a function
            that returns one number; ``x`` is unchanged.
        ValueError: ``x`` is read-only.

    Examples:
        >>> from backend import xp
        >>> from layers import numerical_gradient
        >>> numerical_gradient(lambda x: (x * x).sum(), xp.asarray([1.0, 2.0])).round(6)
        array([2., 4.])
    """
    require_floating(x)
    require_function(f)
    step = {"float64": 1e-4, "float32": 1e-2}.get(x.dtype.name, 1e-1)
    original = x.copy()
    gradient = array_module(x).zeros_like(x)
    try:
        for index in numpy.ndindex(x.shape):
            x[index] = original[index] + step
            above, upper = one_number(f(x)), x[index].copy()
            x[index] = original[index] - step
            below, lower = one_number(f(x)), x[index].copy()
            gradient[index] = (above - below) / (upper - lower)  # the step that rounding left
            x[index] = original[index]
    finally:
        x[...] = original
    return gradient


def require_floating(x: Any) -> None:
    """Raise TypeError unless ``x`` is a floating array, ValueError if it is read-only."""
    if not is_array(x) or isinstance(x, numpy.generic) or x.dtype.kind != "f":
        raise TypeError(f"numerical_gradient needs a floating array, got {getattr(x, 'dtype', type(x).__name__)}")
    require_writable("numerical_gradient", x)


def require_writable(owner: str, x: Any) -> None:
    """Raise ValueError if ``x`` cannot be changed, as a broadcast or a mapped file."""
    if isinstance(x, numpy.ndarray) and not x.flags.writeable:
        raise ValueError(f"{owner} needs an array that it can change, got a read-only one: pass a copy")


def require_function(f: Any) -> None:
    """Raise TypeError unless ``f`` can be called."""
    if not callable(f):
        raise refusal(TypeError, "f", "a function of an array", f)


def one_number(value: Any) -> Any:
    """Return ``value`` if it is one number; else raise TypeError.

    An array is copied: it may be a view of the function's argument, which changes.
    """
    is_number = value.shape == () and value.dtype.kind in "fiu" if is_array(value) else isinstance(value, Real)
    if not is_number or isinstance(value, bool):
        raise refusal(TypeError, "f", "a function that returns one number (such as a loss, or a sum)", value)
    return value.copy() if is_array(value) else value
