"""Losses of networks that predict numbers."""

from __future__ import annotations

from typing import Any

from backend import require_same_device
from backend.checks import Hyperparameter
from backend.types import Array
from kernels import regression, targets
from kernels.core.dtypes import acc_dtype
from layers import checks
from layers.loss import Loss


class _ValueLoss(Loss):
    target_kind = "values"

    def check_targets(self, t: Any, outputs: tuple[int, ...]) -> None:
        targets.check(t, outputs)

    def forward(self, x: Array, t: Array) -> Array:  # type: ignore[override]
        require_same_device(x, t)
        checks.floating(type(self).__name__, x=x)
        loss, error = self._compute(x.astype(acc_dtype(x.dtype), copy=False), t)
        self._keep(loss, x, t)
        return self.save(loss, error, x.dtype)

    def backward(self, dout: Any = 1.0) -> Array:
        error, dtype = self.saved()
        return self._scaled(self._gradient(error), dout, dtype)

    def _compute(self, x: Array, t: Array) -> tuple[Array, Array]:
        raise NotImplementedError

    def _gradient(self, error: Array) -> Array:
        raise NotImplementedError


class MeanSquaredError(_ValueLoss):
    """Mean squared error: the mean of (x - t)² over samples and numbers.

    ``forward(x, t)`` takes predictions (N, numbers) and targets of that shape, of any real dtype; with one number per
    sample, targets may be (N,). The loss of float16 predictions is float32. (The book's ``mean_squared_error`` is half
    the sum.)

    Attributes:
        loss, y, t: loss, predictions and targets of the latest forward.

    Raises:
        TypeError: predictions are not floating, targets are not numbers, or host and device arrays are mixed.
        ValueError: shapes do not fit; or, on the CPU, a target is not finite.

    Examples:
        >>> from backend import xp
        >>> from layers import MeanSquaredError
        >>> layer = MeanSquaredError()
        >>> float(layer.forward(xp.asarray([[1.0], [5.0]]), xp.asarray([2, 3]))), layer.backward()[:, 0].tolist()
        (2.5, [-1.0, 2.0])
    """

    def _compute(self, x: Array, t: Array) -> tuple[Array, Array]:
        return regression.squared_error(x, t)

    def _gradient(self, error: Array) -> Array:
        return regression.squared_error_backward(error)


class HuberLoss(_ValueLoss):
    """Huber's loss (1964), which outliers pull less: ½e² where |e| ≤ delta, else delta·(|e| - ½delta), for e = x - t.

    Arguments of ``forward``, attributes and errors are those of ``MeanSquaredError``.

    Args:
        delta: the error from which on the loss is linear, above 0.

    Examples:
        >>> from backend import xp
        >>> from layers import HuberLoss
        >>> layer = HuberLoss()
        >>> float(layer.forward(xp.asarray([[1.0], [5.0]]), xp.asarray([2, 3]))), layer.backward()[:, 0].tolist()
        (1.0, [-0.5, 0.5])
    """

    delta = Hyperparameter(above=0)

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def _compute(self, x: Array, t: Array) -> tuple[Array, Array]:
        return regression.huber(x, t, self.delta)

    def _gradient(self, error: Array) -> Array:
        return regression.huber_backward(error, self.delta)

    def describe(self) -> str:
        return f"delta {self.delta:g}"
