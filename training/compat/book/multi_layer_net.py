"""The fully connected network of the book's ``common.multi_layer_net``."""

from __future__ import annotations

import math
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from backend.types import Array
from layers.compat.book import layers as _layers
from layers.compat.book import np
from layers.compat.book.gradient import numerical_gradient
from layers.compat.book.layers import *  # noqa: F403  (the book's module exports them, too)
from layers.compat.book.layers import Affine, Relu, Sigmoid, SoftmaxWithLoss

__all__ = [*_layers.__all__, "MultiLayerNet", "OrderedDict", "numerical_gradient", "os", "sys"]

_ACTIVATIONS = {"relu": Relu, "sigmoid": Sigmoid}


class MultiLayerNet:
    """Affine layers with an activation between them, and a softmax loss.

    Args:
        input_size: number of inputs.
        hidden_size_list: number of units of each hidden layer.
        output_size: number of classes.
        activation: ``"relu"`` or ``"sigmoid"``.
        weight_init_std: the standard deviation of the initial weights, drawn by ``numpy.random`` in float64: a number,
            or ``"relu"`` or ``"he"`` for √(2 / inputs), ``"sigmoid"`` or ``"xavier"`` for √(1 / inputs).
        weight_decay_lambda: λ; the loss gets λ/2·ΣW² more, the gradient of each W λ·W.

    Attributes:
        params: W1, b1, W2, …; an optimizer changes them in place.
        layers: the layers by name, in order.
        last_layer: the loss.

    Raises:
        ValueError: ``activation`` or ``weight_init_std`` is unknown.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: Any = "relu",
        weight_decay_lambda: float = 0,
    ) -> None:
        if activation not in _ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}: expected 'relu' or 'sigmoid'")
        self.input_size = input_size
        self.output_size = output_size
        self.hidden_size_list = hidden_size_list
        self.hidden_layer_num = len(hidden_size_list)
        self.weight_decay_lambda = weight_decay_lambda
        self.params: dict[str, Any] = {}
        self._draw_weights([input_size, *hidden_size_list, output_size], weight_init_std)
        self.layers: OrderedDict[str, Any] = OrderedDict()
        for index in range(1, self.hidden_layer_num + 1):
            self._add_affine(index)
            self._add_after_affine(index, _ACTIVATIONS[activation])
        self._add_affine(self.hidden_layer_num + 1)
        self.layers["Affine1"].input_gradient = False  # the gradient of the data is not needed
        self.last_layer = SoftmaxWithLoss()

    def _draw_weights(self, sizes: list[int], weight_init_std: Any) -> None:
        for index, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            scale = _standard_deviation(weight_init_std, inputs)
            self.params[f"W{index}"] = scale * np.random.randn(inputs, outputs)
            self.params[f"b{index}"] = np.zeros(outputs)

    def _add_affine(self, index: int) -> None:
        self.layers[f"Affine{index}"] = Affine(self.params[f"W{index}"], self.params[f"b{index}"])

    def _add_after_affine(self, index: int, activation: Any) -> None:
        self.layers[f"Activation_function{index}"] = activation()

    def predict(self, x: Array) -> Any:
        """Return the scores (N, output_size) of samples ``x`` (N, input_size)."""
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Any:
        """Return the loss, 0-d, of samples and labels (indices or one-hot), with the weight decay."""
        return self.last_layer.forward(self.predict(x), t) + self._weight_decay()

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the share of samples whose highest score is their label's."""
        return _accuracy(self.predict(x), t)

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Any]:
        """Return the gradient of the loss with respect to every parameter, by central differences."""
        return {name: numerical_gradient(lambda _: self.loss(x, t), array) for name, array in self.params.items()}

    def gradient(self, x: Array, t: Array) -> dict[str, Any]:
        """Return the gradient of the loss with respect to every parameter, by backpropagation."""
        self.loss(x, t)
        return self._backward()

    def _weight_decay(self) -> Any:
        if not self.weight_decay_lambda:
            return 0
        weights = (self.params[f"W{index}"] for index in range(1, self.hidden_layer_num + 2))
        return sum(0.5 * self.weight_decay_lambda * (W**2).sum() for W in weights)

    def _backward(self) -> dict[str, Any]:
        dout = self.last_layer.backward()
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        grads = {}
        for index in range(1, self.hidden_layer_num + 2):
            affine = self.layers[f"Affine{index}"]
            decay = self.weight_decay_lambda
            grads[f"W{index}"] = affine.dW + decay * affine.W if decay else affine.dW
            grads[f"b{index}"] = affine.db
        return grads


def _standard_deviation(weight_init_std: Any, inputs: int) -> float:
    if not isinstance(weight_init_std, str):
        return float(weight_init_std)
    name = weight_init_std.lower()
    if name not in ("relu", "he", "sigmoid", "xavier"):
        raise ValueError(
            f"unknown weight_init_std {weight_init_std!r}: expected 'relu', 'he', 'sigmoid', 'xavier' or a number"
        )
    return math.sqrt((2.0 if name in ("relu", "he") else 1.0) / inputs)


def _accuracy(scores: Array, t: Array) -> float:
    """Return the share of samples whose label, (N,), (N, 1) or one-hot (N, classes), has the highest score."""
    labels = t.argmax(axis=1) if t.shape == scores.shape else t.reshape(-1)
    return float((scores.argmax(axis=1) == labels).sum()) / len(scores)
