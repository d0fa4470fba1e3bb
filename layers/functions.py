"""The book's functions, for book code: the same names and arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from backend import array_module, xp
from kernels import activations
from kernels import col2im as _col2im
from kernels import im2col as _im2col
from kernels import softmax as _softmax
from kernels.window import Padding, Pair, Window


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), elementwise; nothing overflows."""
    return activations.sigmoid(_floating(x))


def relu(x: Any) -> Any:
    """max(x, 0), elementwise."""
    return activations.relu(_floating(x))[0]


def softmax(x: Any) -> Any:
    """exp(x) / Σ exp(x) along the last axis: of one sample (classes,) or a batch (N, classes)."""
    return _softmax.softmax(_floating(x))


def cross_entropy_error(y: Any, t: Any) -> Any:
    """The mean of -log y[label], for probabilities y (N, classes) or (classes,), labels as indices or one-hot."""
    return _softmax.cross_entropy(_floating(y), t)


def im2col(input_data: Any, filter_h: int, filter_w: int, stride: int | Pair = 1, pad: Padding = 0) -> Any:
    """The windows of images (N, C, H, W) as rows: (N·OH·OW, C·FH·FW); see :func:`kernels.im2col.im2col`."""
    return _im2col.im2col(input_data, Window((filter_h, filter_w), stride, pad))


def col2im(
    col: Any,
    input_shape: tuple[int, int, int, int],
    filter_h: int,
    filter_w: int,
    stride: int | Pair = 1,
    pad: Padding = 0,
) -> Any:
    """Adds the rows of im2col back into images (N, C, H, W); see :func:`kernels.col2im.col2im`."""
    return _col2im.col2im(col, input_shape, Window((filter_h, filter_w), stride, pad))


def numerical_gradient(f: Callable[[Any], Any], x: Any) -> Any:
    """The gradient of ``f`` at ``x`` by central differences, one element at a time.

    Args:
        f: a function of an array that returns one number. ``x`` itself is changed for it and restored exactly,
            also when ``f`` raises, so ``f`` may as well ignore its argument and read ``x`` where it lies.
        x: a floating array of any shape.

    Returns:
        The gradient, shape and dtype of ``x``. The step is 1e-4 (1e-2 for float32, 1e-1 for float16, whose
        rounding would drown a smaller one).

    Raises:
        TypeError: ``x`` is not a floating array: an integer array cannot take a small step.
    """
    if getattr(x, "dtype", None) is None or x.dtype.kind != "f":
        raise TypeError(f"numerical_gradient needs a floating array, got {getattr(x, 'dtype', type(x).__name__)}")
    step = {"float64": 1e-4, "float32": 1e-2}.get(x.dtype.name, 1e-1)
    original = x.copy()
    gradient = array_module(x).zeros_like(x)
    try:
        for index in numpy.ndindex(x.shape):
            x[index] = original[index] + step
            above, upper = f(x), x[index].copy()
            x[index] = original[index] - step
            below, lower = f(x), x[index].copy()
            gradient[index] = (above - below) / (upper - lower)  # the step that rounding left
            x[index] = original[index]
    finally:
        x[...] = original
    return gradient


def _floating(x: Any) -> Any:
    """``x`` as a floating array: numbers and lists become arrays of the active device, integers float64."""
    array = x if hasattr(x, "dtype") else xp.asarray(x)
    return array if array.dtype.kind == "f" else array.astype("float64")
