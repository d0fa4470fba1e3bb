"""The loss of a network from ONNX, which computes a softmax or sigmoid at the end of the model itself."""

from __future__ import annotations

import math

from layers import Flatten, Layer, Loss, Reshape, Sequential, Sigmoid, SigmoidWithLoss, Softmax, SoftmaxWithLoss
from layers.base import Shape
from layers.losses import as_loss


def with_loss(
    layers: Sequential, shape: Shape, loss: str | Loss | None, usual: str | None
) -> tuple[Sequential, str | Loss | None]:
    """Return layers whose output is what a loss takes, and the loss.

    The losses softmax and sigmoid, and the predictions of a network with them, apply these functions to scores: a last
    layer that is the same function is left out.

    Args:
        layers: of a model, for samples of ``shape``.
        loss: that was asked for; None for the one that suits the model.
        usual: what the model says itself of its loss.

    Raises:
        ValueError: nothing would be left, or there is no such loss.
        TypeError: ``loss`` is neither a loss nor a name.
    """
    names = list(layers.layers)
    count = len(names)
    while count and isinstance(layers[names[count - 1]], (Flatten, Reshape)):
        count -= 1
    last = layers[names[count - 1]] if count else None
    if loss is None:
        loss = usual or _suited(last, layers.output_shape(shape))
    if last is None or not _applies(as_loss(loss), last, _shape_before(layers, count - 1, shape), count == len(names)):
        return layers, loss
    rest = [layer for index, layer in enumerate(layers.layers.values()) if index != count - 1]
    if not rest:
        raise ValueError(f"the model is a {last!r} alone, which the loss computes: no layers are left of it")
    return Sequential(*rest), loss


def _suited(last: Layer | None, output: Shape) -> str | None:
    if isinstance(last, Sigmoid):
        return "sigmoid"
    return "mean-squared" if output == (1,) else None


def _applies(loss: Loss, last: Layer, shape: Shape, is_end: bool) -> bool:
    """Return whether a loss computes what the last layer does of samples of ``shape``; it may not be the very end."""
    if isinstance(last, Sigmoid):
        return isinstance(loss, SigmoidWithLoss)
    if not isinstance(last, Softmax) or not isinstance(loss, SoftmaxWithLoss):
        return False
    together = shape[0] if len(shape) == 3 else shape[-1]
    return is_end or together == math.prod(shape)  # behind it a row: then one softmax, over all classes


def _shape_before(layers: Sequential, index: int, shape: Shape) -> Shape:
    for layer in list(layers.layers.values())[:index]:
        shape = layer.output_shape(shape)
    return shape
