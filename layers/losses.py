"""The losses by name."""

from __future__ import annotations

from backend.checks import refusal
from layers.hinge_loss import HingeLoss
from layers.loss import Loss, SoftmaxWithLoss
from layers.regression_loss import HuberLoss, MeanSquaredError
from layers.sigmoid_loss import SigmoidWithLoss

_BY_NAME: dict[str, type[Loss]] = {
    "softmax": SoftmaxWithLoss,
    "sigmoid": SigmoidWithLoss,
    "mean-squared": MeanSquaredError,
    "huber": HuberLoss,
    "hinge": HingeLoss,
}
NAMES = tuple(_BY_NAME)
"""The names that ``as_loss`` accepts."""


def as_loss(loss: str | Loss | None) -> Loss:
    """Return a loss: itself, the one of that name with its defaults, or for None softmax cross-entropy.

    Raises:
        TypeError: it is neither a loss nor a string.
        ValueError: there is no loss of that name.

    Examples:
        >>> from layers.losses import as_loss
        >>> as_loss("huber")
        HuberLoss(delta 1)
    """
    if isinstance(loss, Loss):
        return loss
    name = "softmax" if loss is None else loss
    if not isinstance(name, str) or name not in _BY_NAME:
        expected = f"a Loss or one of {', '.join(map(repr, NAMES))}"
        raise refusal(ValueError if isinstance(name, str) else TypeError, "loss", expected, loss)
    return _BY_NAME[name]()
