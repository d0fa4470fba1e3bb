"""Softmax, alone and with the loss."""

from __future__ import annotations

from typing import Any

from kernels import softmax as kernel
from kernels.layout import images, storage
from layers import checks
from layers.base import Layer


class Softmax(Layer):
    """y = exp(x) / Σ exp(x) over the classes: the last axis, or for images (N, C, H, W) the channels of each pixel."""

    def forward(self, x: Any) -> Any:
        checks.floating("Softmax", x=x)
        y = kernel.softmax(storage(x) if x.ndim == 4 else x)
        self._keep(y)
        return images(y) if x.ndim == 4 else y

    def backward(self, dout: Any) -> Any:
        (y,) = self._recall()
        checks.same_shape("Softmax", dout, images(y).shape if y.ndim == 4 else y.shape)
        dx = (storage(dout) if y.ndim == 4 else dout) * y
        dx -= y * dx.sum(axis=-1, keepdims=True)
        return images(dx) if y.ndim == 4 else dx


class SoftmaxWithLoss(Layer):
    """The mean cross-entropy of softmax(x) against labels.

    ``forward(x, t)`` takes scores (N, classes) and labels, as class indices (N,) or one-hot rows (N, classes), and
    returns the loss, 0-d and on the device; ``y`` then holds the probabilities. ``backward(dout)`` scales by ``dout``.
    """

    def __init__(self) -> None:
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None

    def forward(self, x: Any, t: Any) -> Any:  # type: ignore[override]
        checks.floating("SoftmaxWithLoss", x=x)
        self.loss, self.y = kernel.softmax_cross_entropy(x, t)
        self.t = t
        self._keep(self.y, t)
        return self.loss

    def backward(self, dout: Any = 1.0) -> Any:
        y, t = self._recall()
        return kernel.softmax_cross_entropy_backward(y, t, dout)
