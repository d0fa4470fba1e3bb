"""The dropout layer."""

from __future__ import annotations

from backend.checks import Hyperparameter
from backend.types import Array
from kernels.activations import scale
from kernels.dropout import dropout
from kernels.masking import masked
from layers import checks
from layers.base import Layer


class Dropout(Layer):
    """Dropout (Srivastava et al., JMLR 2014), as in the book: sets numbers to 0 at random in training.

    y = x·mask in training, y = x·(1 - dropout_ratio) in evaluation. Masks come from ``backend.random`` and are the same
    on every device. (``layers.compat.book.Dropout`` draws from ``numpy.random``, as the book does.)

    Args:
        dropout_ratio: the share that is dropped, from 0 up to but not including 1.

    Raises:
        TypeError: the ratio is not a number.
        ValueError: it is out of its range.

    Examples:
        >>> from backend import xp
        >>> from layers import Dropout
        >>> layer = Dropout(0.25).eval()
        >>> layer.forward(xp.asarray([[4.0, 8.0]]))
        array([[3., 6.]])
    """

    dropout_ratio = Hyperparameter(least=0, below=1)

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio

    def forward(self, x: Array) -> Array:
        checks.floating("Dropout", x=x)
        if self.training:
            y, mask = dropout(x, self.dropout_ratio)
            return self.save(y, mask)
        return self.save(scale(x, factor=1 - self.dropout_ratio), None)

    def backward(self, dout: Array) -> Array:
        (mask,) = self.saved(dout)
        if mask is None:
            return scale(dout, factor=1 - self.dropout_ratio)
        return masked(dout, mask)

    def describe(self) -> str:
        return f"{self.dropout_ratio:g}"
