"""The loss of labels that are each right or wrong: several of them, or one for yes or no."""

from __future__ import annotations

from typing import Any

from backend import require_same_device
from backend.types import Array
from kernels import activations, targets
from kernels.binary_cross_entropy import binary_cross_entropy, binary_cross_entropy_backward
from kernels.core.dtypes import acc_dtype
from layers import checks
from layers.loss import Loss


class SigmoidWithLoss(Loss):
    """Binary cross-entropy loss of scores: the mean of -t·log σ(x) - (1 - t)·log(1 - σ(x)) over samples and labels.

    ``forward(x, t)`` takes scores (N, labels) and for each a 0 or 1, or a probability between: (N, labels), of any
    dtype, bool too. With one score per sample, for yes or no, targets may be (N,). Large scores do not overflow. Loss
    and probabilities of float16 scores are float32.

    Attributes:
        loss, y, t: loss, probabilities (N, labels) and targets of the latest forward.

    Raises:
        TypeError: scores are not floating, targets are not numbers, or host and device arrays are mixed.
        ValueError: shapes do not fit; or, on the CPU, a target is not from 0 to 1 (on a GPU the loss is NaN then).

    Examples:
        >>> from backend import xp
        >>> from layers import SigmoidWithLoss
        >>> layer = SigmoidWithLoss()
        >>> round(float(layer.forward(xp.asarray([[0.0, 100.0]]), xp.asarray([[1, 1]]))), 4)
        0.3466
        >>> layer.backward()
        array([[-0.25,  0.  ]])
    """

    target_kind = "labels"

    def forward(self, x: Array, t: Array) -> Array:  # type: ignore[override]
        require_same_device(x, t)
        checks.floating("SigmoidWithLoss", x=x)
        loss, y = binary_cross_entropy(x.astype(acc_dtype(x.dtype), copy=False), t)
        self._keep(loss, y, t)
        return self.save(loss, y, t, x.dtype)

    def backward(self, dout: Any = 1.0) -> Array:
        y, t, dtype = self.saved()
        return self._scaled(binary_cross_entropy_backward(y, t), dout, dtype)

    def predictions(self, x: Array) -> Array:
        return activations.sigmoid(x.astype(acc_dtype(x.dtype), copy=False))

    def check_targets(self, t: Any, outputs: tuple[int, ...]) -> None:
        targets.check(t, outputs, least=0, most=1)
