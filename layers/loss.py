"""The softmax layer, and the loss of a classifier."""

from __future__ import annotations

from typing import Any

from backend import is_array, require_same_device
from backend.checks import real
from backend.types import Array
from kernels import softmax as kernel
from kernels.core.dtypes import acc_dtype
from kernels.core.layout import as_nchw, to_nhwc
from layers import checks
from layers.base import Layer


def cross_entropy_error(y: Array, t: Any) -> Array:
    """Return the mean of -log y[label].

    The book's function of this name, ``layers.compat.book.cross_entropy_error``, adds 1e-7 to y.

    Args:
        y: probabilities (N, classes) or (classes,), floating. A probability of 0 counts as the smallest normal number.
        t: labels as class indices (N,) or one-hot rows; for one sample (classes,) its index.

    Raises:
        ValueError: shapes do not fit, or, on the CPU, a label is out of range.

    Examples:
        >>> from backend import xp
        >>> from layers import cross_entropy_error
        >>> round(float(cross_entropy_error(xp.asarray([[0.5, 0.5], [0.1, 0.9]]), xp.asarray([0, 1]))), 4)
        0.3993
    """
    return kernel.cross_entropy(y, t)


class Softmax(Layer):
    """Softmax: y = exp(x) / Σ exp(x) over the last axis, or for images (N, C, H, W) over the channels of each pixel."""

    def forward(self, x: Array) -> Array:
        checks.floating("Softmax", x=x)
        y = kernel.softmax(to_nhwc(x) if x.ndim == 4 else x)
        return self.save(as_nchw(y) if x.ndim == 4 else y, y)

    def backward(self, dout: Array) -> Array:
        (y,) = self.saved(dout)
        dx = kernel.softmax_backward(to_nhwc(dout) if y.ndim == 4 else dout, y)
        return as_nchw(dx) if y.ndim == 4 else dx


class SoftmaxWithLoss(Layer):
    """Softmax cross-entropy loss: the mean of -log softmax(x)[label].

    ``forward(x, t)`` takes scores (N, classes) and labels, as class indices (N,) or one-hot rows (N, classes), and
    returns the loss, 0-d and on the device. ``backward(dout)`` multiplies the gradient by ``dout``. The loss and the
    probabilities of float16 scores are float32: float16 is coarse near 1, where probabilities end up.
    (``layers.compat.book.SoftmaxWithLoss`` adds 1e-7 to a probability and ignores ``dout``, as the book does.)

    Attributes:
        loss, y, t: loss, probabilities (N, classes) and labels of the latest forward.

    Raises:
        TypeError: scores are not floating, labels are neither integers nor distributions, or host and device arrays are
            mixed.
        ValueError: shapes do not fit; there is one score per sample, whose softmax is always 1; or, on the CPU, a label
            is out of range (on a GPU the loss is NaN then, since raising would wait for the device).

    Examples:
        >>> from backend import xp
        >>> from layers import SoftmaxWithLoss
        >>> layer = SoftmaxWithLoss()
        >>> round(float(layer.forward(xp.asarray([[0.0, 0.0]]), xp.asarray([1]))), 4)
        0.6931
        >>> layer.backward()
        array([[ 0.5, -0.5]])
    """

    def __init__(self) -> None:
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None

    def forward(self, x: Array, t: Array) -> Array:  # type: ignore[override]
        require_same_device(x, t)
        checks.floating("SoftmaxWithLoss", x=x)
        checks.more_than_one_score("SoftmaxWithLoss", x.shape[-1] if x.ndim else 0)
        self.loss, self.y = kernel.softmax_cross_entropy(x.astype(acc_dtype(x.dtype), copy=False), t)
        self.t = t
        return self.save(self.loss, self.y, t, x.dtype)

    def forget(self) -> Layer:
        self.loss = self.y = self.t = None
        return super().forget()

    def backward(self, dout: Any = 1.0) -> Array:
        y, t, dtype = self.saved()  # any number or 0-d array scales, whatever its dtype
        if getattr(dout, "ndim", 1) or not is_array(dout):  # to read a number that lies on the device would wait for it
            dout = real("SoftmaxWithLoss.backward: dout", dout)
        return kernel.softmax_cross_entropy_backward(y, t, dout).astype(dtype, copy=False)
