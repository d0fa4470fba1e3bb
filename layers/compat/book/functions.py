"""The functions of the book's ``common.functions``, and im2col and col2im of its ``common.util``.

Arrays keep a floating dtype; integers, numbers and lists are computed in float64.
"""

from __future__ import annotations

from typing import Any

from backend import array_module
from backend.checks import LARGEST_SIZE, whole
from backend.types import Array
from kernels import activations
from kernels import col2im as _col2im
from kernels import im2col as _im2col
from kernels import labels as _labels
from kernels import softmax as _softmax
from kernels.core.window import Padding, Pair, Window
from layers.compat.book import np
from layers.compat.book._arrays import as_array, as_floating, in_common_dtype

__all__ = [
    "col2im",
    "cross_entropy_error",
    "identity_function",
    "im2col",
    "mean_squared_error",
    "np",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]

IN_LOGARITHM = 1e-7
"""The number that the book adds to a probability before taking the logarithm."""


def identity_function(x: Any) -> Array:
    """Return ``x`` itself."""
    return x


def step_function(x: Any) -> Array:
    """Return 1 where x > 0, else 0: an integer array."""
    return (as_array(x) > 0).astype(int)


def sigmoid(x: Any) -> Array:
    """Return 1 / (1 + exp(-x)), elementwise; nothing overflows."""
    return activations.sigmoid(as_floating(x))


def sigmoid_grad(x: Any) -> Array:
    """Return the derivative of ``sigmoid`` at ``x``: (1 - sigmoid(x))·sigmoid(x)."""
    y = sigmoid(x)
    return (1.0 - y) * y


def relu(x: Any) -> Array:
    """Return max(x, 0), elementwise; integers stay integers."""
    x = as_array(x)
    return activations.relu(x)[0] if x.dtype.kind == "f" else array_module(x).maximum(x, 0)


def relu_grad(x: Any) -> Array:
    """Return 1 where x ≥ 0, else 0, in the dtype of ``x``. (The gradient of the layer ``Relu`` is 0 at 0.)"""
    x = as_array(x)
    return (x >= 0).astype(x.dtype)


def softmax(x: Any) -> Array:
    """Return exp(x) / Σ exp(x) along the last axis: of one sample (classes,) or a batch (N, classes)."""
    return _softmax.softmax(as_floating(x))


def sum_squared_error(y: Any, t: Any) -> Array:
    """Return half the sum of the squared differences, over all elements."""
    y, t = in_common_dtype(y, t)  # differences of unsigned integers would wrap around
    return 0.5 * ((y - t) ** 2).sum()


mean_squared_error = sum_squared_error
"""The name in the book's text and first printings. It is not a mean."""


def cross_entropy_error(y: Any, t: Any) -> Array:
    """Return the mean of -log(y[label] + 1e-7).

    The 1e-7 lowers the loss of a probable label by about 1e-7, and limits that of an impossible one to 16.1.
    ``layers.cross_entropy_error`` does not add it.

    Args:
        y: probabilities (N, classes), or (classes,) of one sample.
        t: labels: class indices (N,) or (N, 1), or rows of the shape of ``y`` whose largest number marks the class.
            For one sample, the index or
            such a row.

    Returns:
        0-d. On a GPU a label out of range makes it NaN, since raising would wait for the device.

    Raises:
        TypeError, ValueError: labels do not fit, as ``kernels.labels.check``.
    """
    y, t = as_floating(y), as_array(t)
    if y.ndim == 1:
        y, t = y.reshape(1, -1), t.reshape(1, -1)
    labels = class_indices(t, y.shape)
    library = array_module(y, labels)
    picked = y[library.arange(len(y)), labels]
    if library.__name__ != "numpy":
        picked = library.where((labels >= 0) & (labels < y.shape[1]), picked, library.nan)
    return -library.log(picked + IN_LOGARITHM).sum() / len(y)


def softmax_loss(X: Any, t: Any) -> Array:
    """Return ``cross_entropy_error`` of softmax(X) against ``t``."""
    return cross_entropy_error(softmax(X), t)


def im2col(input_data: Any, filter_h: int, filter_w: int, stride: int | Pair = 1, pad: Padding = 0) -> Array:
    """Return the windows of images (N, C, H, W) as rows: (N·OH·OW, C·FH·FW); see ``kernels.im2col.im2col``.

    Examples:
        >>> from backend import xp
        >>> from layers.compat.book import im2col
        >>> im2col(xp.zeros((10, 3, 7, 7)), 5, 5).shape
        (90, 75)
    """
    return _im2col.im2col(as_floating(input_data), _window(filter_h, filter_w, stride, pad))


def col2im(
    col: Any,
    input_shape: tuple[int, int, int, int],
    filter_h: int,
    filter_w: int,
    stride: int | Pair = 1,
    pad: Padding = 0,
) -> Array:
    """Add the rows of im2col back into images (N, C, H, W); see ``kernels.col2im.col2im``."""
    return _col2im.col2im(as_floating(col), input_shape, _window(filter_h, filter_w, stride, pad))


def class_indices(t: Any, scores: tuple[int, ...]) -> Array:
    """Return the labels ``t`` of scores (N, classes), (N,), (N, 1) or (N, classes), as class indices (N,).

    Raises:
        TypeError, ValueError: as ``kernels.labels.check``.
    """
    if t.shape != scores and t.shape == (scores[0], 1):
        t = t.reshape(-1)
    _labels.check(t, scores)
    return t.argmax(axis=1) if t.ndim == 2 else t


def _window(filter_h: Any, filter_w: Any, stride: Any, pad: Any) -> Window:
    kernel = whole("filter_h", filter_h, 1, LARGEST_SIZE), whole("filter_w", filter_w, 1, LARGEST_SIZE)
    return Window(kernel, stride, pad)
