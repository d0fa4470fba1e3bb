"""The dropout layer."""

from __future__ import annotations

from backend.checks import Hyperparameter, flag
from backend.types import Array
from kernels.activations import scale
from kernels.dropout import dropout
from kernels.masking import masked
from layers import checks
from layers.base import Layer

_LARGEST_FACTOR = 65504.0  # of float16: infinity would make zeros NaN


class Dropout(Layer):
    """Dropout (Srivastava et al., JMLR 2014), as in the book: sets numbers to 0 at random in training.

    y = x·mask in training, y = x·(1 - dropout_ratio) in evaluation; inverted, as other libraries have it,
    y = x·mask / (1 - dropout_ratio) in training, y = x in evaluation. Masks come from ``backend.random`` and are the
    same on every device. (``layers.compat.book.Dropout`` draws from ``numpy.random``, as the book does.)

    Args:
        dropout_ratio: the share that is dropped, from 0 up to but not including 1.
        inverted: enlarge what stays in training, in place of scaling in evaluation.

    Raises:
        TypeError: the ratio is not a number, or ``inverted`` not a bool.
        ValueError: it is out of its range.

    Examples:
        >>> from backend import xp
        >>> from layers import Dropout
        >>> layer = Dropout(0.25).eval()
        >>> layer.forward(xp.asarray([[4.0, 8.0]]))
        array([[3., 6.]])
    """

    dropout_ratio = Hyperparameter(least=0, below=1)

    def __init__(self, dropout_ratio: float = 0.5, inverted: bool = False) -> None:
        self.dropout_ratio = dropout_ratio
        self.inverted = flag("inverted", inverted)

    def forward(self, x: Array) -> Array:
        checks.floating("Dropout", x=x)
        stays = 1 - self.dropout_ratio
        if not self.training:
            factor = 1.0 if self.inverted else stays
            return self.save(scale(x, factor), None, factor)
        y, mask = dropout(x, self.dropout_ratio)
        factor = min(1 / stays, _LARGEST_FACTOR) if self.inverted else None
        return self.save(y if factor is None else scale(y, factor), mask, factor)

    def backward(self, dout: Array) -> Array:
        mask, factor = self.saved(dout)
        dx = dout if mask is None else masked(dout, mask)
        return dx if factor is None else scale(dx, factor)

    def describe(self) -> str:
        return f"{self.dropout_ratio:g}{', inverted' if self.inverted else ''}"
