"""Softmax, and the loss of a classifier."""

from __future__ import annotations

from typing import Any

from backend import is_array, require_same_device
from backend.checks import real
from kernels import softmax as kernel
from kernels.core.dtypes import acc_dtype
from kernels.core.layout import as_nchw, to_nhwc
from layers import checks
from layers.base import Layer


def cross_entropy_error(y: Any, t: Any) -> Any:
    """Return the mean of -log y[label].

    The book's function of this name, ``layers.compat.book.cross_entropy_error``, adds 1e-7 to y.

    Args:
        y: probabilities (N, classes) or (classes,), floating. A probability of 0 counts as the smallest normal number.
        t: labels as class indices (N,) or one-hot rows.

    Raises:
        ValueError: shapes do not fit, or, on the CPU, a label is out of range.
    """
    return kernel.cross_entropy(y, t)


class Softmax(Layer):
    """y = exp(x) / Σ exp(x) over the classes: the last axis, or for images (N, C, H, W) the channels of each pixel."""

    def forward(self, x: Any) -> Any:
        checks.floating("Softmax", x=x)
        y = kernel.softmax(to_nhwc(x) if x.ndim == 4 else x)
        return self.save(as_nchw(y) if x.ndim == 4 else y, y)

    def backward(self, dout: Any) -> Any:
        (y,) = self.saved(dout)
        dx = kernel.softmax_backward(to_nhwc(dout) if y.ndim == 4 else dout, y)
        return as_nchw(dx) if y.ndim == 4 else dx


class SoftmaxWithLoss(Layer):
    """The mean cross-entropy of softmax(x) against labels.

    ``forward(x, t)`` takes scores (N, classes) and labels, as class indices (N,) or one-hot rows (N, classes), and
    returns the loss, 0-d and on the device; ``y`` then holds the probabilities. ``backward(dout)`` scales by ``dout``.
    Of float16 scores the loss and the probabilities are float32: near 1, where probabilities end up, float16 is coarse.
    (The book adds 1e-7 to a probability before the logarithm, and leaves ``dout`` aside:
    ``layers.compat.book.SoftmaxWithLoss``.)

    Raises:
        TypeError: scores are not floating, labels no integers or distributions; host and device arrays are mixed.
        ValueError: shapes do not fit; there is one score a sample, over which any softmax is 1; or, on the CPU, a label
            is no class (it is named; on a GPU the loss is NaN, since raising would wait for the device).
    """

    def __init__(self) -> None:
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None

    def forward(self, x: Any, t: Any) -> Any:  # type: ignore[override]
        require_same_device(x, t)
        checks.floating("SoftmaxWithLoss", x=x)
        checks.more_than_one_score("SoftmaxWithLoss", x.shape[-1] if x.ndim else 0)
        self.loss, self.y = kernel.softmax_cross_entropy(x.astype(acc_dtype(x.dtype), copy=False), t)
        self.t = t
        return self.save(self.loss, self.y, t, x.dtype)

    def forget(self) -> Layer:
        self.loss = self.y = self.t = None
        return super().forget()

    def backward(self, dout: Any = 1.0) -> Any:
        y, t, dtype = self.saved()  # any number or 0-d array scales, whatever its dtype
        if not is_array(dout) or dout.ndim:  # to read a number that lies on the device would wait for it
            dout = real("SoftmaxWithLoss.backward: dout", dout)
        return kernel.softmax_cross_entropy_backward(y, t, dout).astype(dtype, copy=False)
