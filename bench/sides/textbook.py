"""The layers of ``bench.textbook``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backend.types import Array
from bench import textbook
from bench.sides.base import Case, Side, is_plain


class Textbook(Side):
    name = "textbook"

    def training(self, network: Any, x: Array, t: Array, optimizer: str, way: str = "") -> Case | None:
        if not is_plain(network):
            return None
        layers = [_layer(layer) for layer in network.layers.layers.values()]
        last = textbook.SoftmaxWithLoss()
        rule: Any = {"sgd": textbook.SGD, "adam": textbook.Adam}[optimizer]()
        params = {(number, key): array for number, layer in enumerate(layers) for key, array in layer.params.items()}
        before = layers[0].params["W"].copy()
        loss: Any = None

        def step() -> None:
            nonlocal loss
            y = x
            for layer in layers:
                y = layer.forward(y)
            loss = last.forward(y, t)
            dout = last.backward()
            for layer in reversed(layers):
                dout = layer.backward(dout)
            rule.update(params, {(number, key): layers[number].grads[key] for number, key in params})

        def values() -> dict[str, np.ndarray]:
            update = layers[0].params["W"] - before
            return {"loss": np.asarray(loss), "gradient": layers[0].grads["W"], "update": update}

        return Case(step, values)

    def convolution_block(
        self,
        x: Array,
        W: Array,
        b: Array,
        gamma: Array,
        beta: Array,
        dout: Array,
        winograd: bool = False,
        way: str = "",
    ) -> Case:
        convolution = textbook.Convolution(W, b, 1, 1)
        layers = [convolution, textbook.BatchNormalization(gamma, beta), textbook.Relu()]
        return _both_ways(layers, x, dout, lambda: {"dW": convolution.grads["W"]})

    def im2col(self, x: Array, size: int, pad: int, order: str, way: str = "") -> Case:
        columns: Any = None

        def step() -> None:
            nonlocal columns
            columns = textbook.im2col(x, size, 1, pad)

        return Case(step, lambda: {"columns": columns})

    def col2im(self, columns: Array, shape: Any, size: int, pad: int, order: str, way: str = "") -> Case:
        image: Any = None

        def step() -> None:
            nonlocal image
            image = textbook.col2im(columns, shape, size, 1, pad)

        return Case(step, lambda: {"image": image})

    def max_pooling(self, x: Array, dout: Array, size: int, stride: int, way: str = "") -> Case:
        return _both_ways([textbook.Pooling(size, stride, 0)], x, dout)

    def batch_norm_relu(self, x: Array, gamma: Array, beta: Array, dout: Array, way: str = "") -> Case:
        normalization = textbook.BatchNormalization(gamma, beta)
        return _both_ways([normalization, textbook.Relu()], x, dout, lambda: {"dgamma": normalization.grads["gamma"]})

    def softmax_cross_entropy(self, x: Array, t: Array, way: str = "") -> Case:
        layer = textbook.SoftmaxWithLoss()
        loss: Any = None
        dx: Any = None

        def step() -> None:
            nonlocal loss, dx
            loss = layer.forward(x, t)
            dx = layer.backward()

        return Case(step, lambda: {"loss": np.asarray(loss), "dx": dx})


def _both_ways(layers: list[Any], x: Array, dout: Array, others: Callable[[], dict[str, Any]] = dict) -> Case:
    y = dx = None

    def step() -> None:
        nonlocal y, dx
        y, dx = x, dout
        for layer in layers:
            y = layer.forward(y)
        for layer in reversed(layers):
            dx = layer.backward(dx)

    return Case(step, lambda: {"y": y, "dx": dx, **others()})


def _layer(layer: Any) -> Any:
    match type(layer).__name__:
        case "Affine":
            return textbook.Affine(layer.W, layer.b)
        case "Convolution":
            return textbook.Convolution(layer.W, layer.b, layer.stride, layer.pad)
        case "Relu":
            return textbook.Relu()
        case "Pooling":
            return textbook.Pooling(layer.pool_h, layer.stride, layer.pad)
        case "Dropout":
            return textbook.Dropout(layer.dropout_ratio)
        case kind:
            raise NotImplementedError(f"bench.textbook has no counterpart of {kind}")


SIDE = Textbook()
