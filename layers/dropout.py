"""Dropout."""

from __future__ import annotations

from typing import Any

from backend.checks import Hyperparameter
from kernels.activations import scale
from kernels.dropout import dropout_mask
from kernels.masking import masked
from layers import checks
from layers.base import Layer


class Dropout(Layer):
    """Drops elements at random in training, scales by what would have stayed in evaluation.

    Srivastava et al. (JMLR 2014), as in the book: y = x·mask in training, y = x·(1 - ratio) in evaluation. Masks come
    from ``backend.random`` and are the same on every device. (The book's, of ``numpy.random``, are those of
    ``layers.compat.book.Dropout``.)

    Args:
        dropout_ratio: the share that is dropped, from 0 up to but not including 1.

    Raises:
        TypeError: the ratio is no number.
        ValueError: it is out of its range.
    """

    dropout_ratio = Hyperparameter(least=0, below=1)

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio

    def forward(self, x: Any) -> Any:
        checks.floating("Dropout", x=x)
        if self.training:
            mask = dropout_mask(x.shape, self.dropout_ratio)
            return self.save(masked(x, mask), mask)
        return self.save(scale(x, factor=1 - self.dropout_ratio), None)

    def backward(self, dout: Any) -> Any:
        (mask,) = self.saved(dout)
        if mask is None:
            return scale(dout, factor=1 - self.dropout_ratio)
        return masked(dout, mask)

    def describe(self) -> str:
        return f"{self.dropout_ratio:g}"
