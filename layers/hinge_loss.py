"""The hinge loss of a classifier."""

from __future__ import annotations

from typing import Any

from backend import require_same_device
from backend.types import Array
from kernels import labels
from kernels.core.dtypes import acc_dtype
from kernels.hinge import hinge
from kernels.softmax import softmax
from layers import checks
from layers.loss import Loss


class HingeLoss(Loss):
    """Multi-class hinge loss (Weston and Watkins, 1999): the mean of Σ max(0, x[j] - x[label] + 1)
    over the wrong classes j.

    ``forward(x, t)`` takes scores (N, classes) and class indices (N,). The loss of float16 scores is float32.

    Attributes:
        loss, y, t: loss, scores and labels of the latest forward.

    Raises:
        TypeError: scores are not floating, labels are not integers, or host and device arrays are mixed.
        ValueError: shapes do not fit, there is one score per sample, or, on the CPU, a label is out of range (on a GPU
            the loss is NaN then).

    Examples:
        >>> from backend import xp
        >>> from layers import HingeLoss
        >>> layer = HingeLoss()
        >>> float(layer.forward(xp.asarray([[1.0, 1.5, -3.0]]), xp.asarray([0]))), layer.backward()[0].tolist()
        (1.5, [-1.0, 1.0, 0.0])
    """

    target_kind = "classes"

    def forward(self, x: Array, t: Array) -> Array:  # type: ignore[override]
        require_same_device(x, t)
        checks.floating("HingeLoss", x=x)
        self.check_outputs("HingeLoss", x.shape[-1] if x.ndim else 0)
        loss, dx = hinge(x.astype(acc_dtype(x.dtype), copy=False), t)
        self._keep(loss, x, t)
        return self.save(loss, dx, x.dtype)

    def backward(self, dout: Any = 1.0) -> Array:
        dx, dtype = self.saved()
        return self._scaled(dx.copy(), dout, dtype)

    def predictions(self, x: Array) -> Array:
        """Return the softmax of the scores: numbers from 0 to 1 in their order, but no probabilities."""
        return softmax(x.astype(acc_dtype(x.dtype), copy=False))

    def check_outputs(self, owner: str, outputs: int) -> None:
        if outputs == 1:
            raise ValueError(f"{owner}: expected a score for each class (two for yes or no), got one score per sample")

    def check_targets(self, t: Any, outputs: tuple[int, ...]) -> None:
        labels.check(t, outputs, distributions=False)
