"""The elementwise layers of the book's ``common.layers``; ``layers.compat.book.layers`` has the others."""

from __future__ import annotations

from typing import Any

from backend import array_module
from backend.checks import Hyperparameter, flag
from backend.types import Array
from kernels import activations
from kernels.masking import masked
from layers.base import Layer
from layers.compat.book import np
from layers.compat.book._arrays import as_array
from layers.compat.book.functions import sigmoid


class Relu(Layer):
    """y = max(x, 0); integers stay integers. Its gradient at 0 is 0."""

    def forward(self, x: Any) -> Array:
        x = as_array(x)
        if x.dtype.kind == "f":
            y, positive = activations.relu(x)
        else:
            y, positive = array_module(x).maximum(x, 0), x > 0
        return self.save(y, positive)

    def backward(self, dout: Any) -> Array:
        (positive,) = self.saved()
        return masked(as_array(dout), positive)

    @property
    def mask(self) -> Array | None:
        """True where the input of the latest forward was not above 0; None before it."""
        return None if self._kept is None else ~self._kept[0]


class _Elementwise(Layer):
    def _gradient(self, dout: Any) -> Array:
        """Return ``dout`` as an array; raise ValueError unless it is one number or has the shape of the output."""
        dout = as_array(dout)
        if dout.ndim:
            self._check_gradient(dout.astype(self._output[1], copy=False), self._output)
        return dout


class Sigmoid(_Elementwise):
    """y = 1 / (1 + exp(-x))."""

    def forward(self, x: Any) -> Array:
        y = sigmoid(x)
        return self.save(y, y)

    def backward(self, dout: Any) -> Array:
        (y,) = self.saved()
        return self._gradient(dout) * (1.0 - y) * y

    @property
    def out(self) -> Array | None:
        """The output of the latest forward; None before it."""
        return None if self._kept is None else self._kept[0]


def _in_training(layer: Layer, train_flg: bool | None) -> bool:
    """Return the mode of one forward: the book's ``train_flg``, or the layer's mode if that is None.

    Raises:
        TypeError: ``train_flg`` is not True, False or None.
    """
    return layer.training if train_flg is None else flag("train_flg", train_flg)


class Dropout(_Elementwise):
    """y = x·mask in training, y = x·(1 - dropout_ratio) in evaluation.

    Masks are drawn by ``numpy.random``, as in the book: the same seed drops the same numbers. (``layers.Dropout``
    draws from ``backend.random``, on the device.)
    """

    dropout_ratio = Hyperparameter(least=0, most=1)

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio
        self.mask: Any = None

    def forward(self, x: Any, train_flg: bool | None = None) -> Array:
        x = as_array(x)
        if _in_training(self, train_flg):
            self.mask = np.random.rand(*x.shape) > self.dropout_ratio
            return self.save(x * self.mask, self.mask)
        return self.save(x * (1.0 - self.dropout_ratio), 1.0 - self.dropout_ratio)

    def backward(self, dout: Any) -> Array:
        (factor,) = self.saved()
        return self._gradient(dout) * factor

    def forget(self) -> Layer:
        self.mask = None
        return super().forget()
