"""DeZero 0.0.13, whose import needs the ``np.int`` of old NumPy versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.sides.base import Case, Side, is_plain

if not hasattr(np, "int"):
    np.int = int  # type: ignore[attr-defined]  # noqa: NPY001
import dezero
import dezero.functions as F  # noqa: N812  (DeZero's own custom)
import dezero.layers as L  # noqa: N812
from dezero import Variable, optimizers
from dezero.functions_conv import col2im_array, im2col_array


class DeZero(Side):
    name = "dezero"

    def training(self, network: Any, x: Any, t: Any, optimizer: str, way: str = "") -> Case | None:
        if not is_plain(network):
            return None
        model = _Model(network)
        first: Any = model.row[0]
        weights = first.W
        before = weights.data.copy()
        rule = {"sgd": lambda: optimizers.SGD(lr=0.01), "adam": optimizers.Adam}[optimizer]().setup(model)
        loss: Any = None

        def step() -> None:
            nonlocal loss
            loss = F.softmax_cross_entropy(model(x), t)
            model.cleargrads()
            loss.backward()
            rule.update()

        def values() -> dict[str, np.ndarray]:
            return {"loss": loss.data, "gradient": weights.grad.data, "update": weights.data - before}

        return Case(step, values)

    def convolution_block(
        self, x: Any, W: Any, b: Any, gamma: Any, beta: Any, dout: Any, winograd: bool = False, way: str = ""
    ) -> Case:
        convolution = _with(L.Conv2d(len(W), W.shape[2], pad=1), W, b)
        normalization = _batch_norm(gamma, beta)

        def forward(x: Any) -> Any:
            return F.relu(normalization(convolution(x)))

        layers = [convolution, normalization]
        return _both_ways(forward, x, dout, layers, lambda: {"dW": convolution.W.grad.data})

    def im2col(self, x: Any, size: int, pad: int, order: str, way: str = "") -> Case:
        columns: Any = None

        def step() -> None:
            nonlocal columns
            columns = im2col_array(x, size, 1, pad, to_matrix=True)

        return Case(step, lambda: {"columns": columns})

    def col2im(self, columns: Any, shape: Any, size: int, pad: int, order: str, way: str = "") -> Case:
        image: Any = None

        def step() -> None:
            nonlocal image
            image = col2im_array(columns, shape, size, 1, pad, to_matrix=True)

        return Case(step, lambda: {"image": image})

    def max_pooling(self, x: Any, dout: Any, size: int, stride: int, way: str = "") -> Case:
        return _both_ways(lambda x: F.pooling(x, size, stride), x, dout, [])

    def batch_norm_relu(self, x: Any, gamma: Any, beta: Any, dout: Any, way: str = "") -> Case:
        layer = _batch_norm(gamma, beta)
        return _both_ways(lambda x: F.relu(layer(x)), x, dout, [layer], lambda: {"dgamma": layer.gamma.grad.data})

    def softmax_cross_entropy(self, x: Any, t: Any, way: str = "") -> Case:
        x = Variable(x)
        loss: Any = None

        def step() -> None:
            nonlocal loss
            x.cleargrad()
            loss = F.softmax_cross_entropy(x, t)
            loss.backward()

        return Case(step, lambda: {"loss": loss.data, "dx": x.grad.data})


class _Model(dezero.Model):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.row: list[Callable[[Any], Any]] = []
        for number, layer in enumerate(network.layers.layers.values()):
            made = _function(layer)
            if isinstance(made, dezero.Layer):
                setattr(self, f"layer{number}", made)
            self.row.append(made)

    def forward(self, x: Any) -> Any:
        for function in self.row:
            x = function(x)
        return x


def _function(layer: Any) -> Callable[[Any], Any]:
    match type(layer).__name__:
        case "Affine":
            return _with(_Affine(layer.W.shape[1]), layer.W, layer.b)
        case "Convolution":
            shell = L.Conv2d(len(layer.W), layer.W.shape[2], layer.stride, layer.pad)
            return _with(shell, layer.W, layer.b)
        case "Relu":
            return F.relu
        case "Pooling":
            return lambda x: F.pooling(x, layer.pool_h, layer.stride, layer.pad)
        case "Dropout":
            return lambda x: F.dropout(x, layer.dropout_ratio)
        case kind:
            raise NotImplementedError(f"the bench has no DeZero counterpart of {kind}")


class _Affine(L.Linear):
    def forward(self, x: Any) -> Any:
        return super().forward(F.reshape(x, (len(x), -1)) if x.ndim > 2 else x)


def _with(layer: Any, W: np.ndarray, b: np.ndarray) -> Any:
    layer.W.data, layer.b.data = W.copy(), b.copy()
    return layer


def _batch_norm(gamma: np.ndarray, beta: np.ndarray) -> Any:
    layer = L.BatchNorm()
    layer.gamma.data, layer.beta.data = gamma.copy(), beta.copy()
    layer.avg_mean.data, layer.avg_var.data = np.zeros_like(gamma), np.ones_like(gamma)
    return layer


def _both_ways(
    forward: Callable[[Any], Any],
    x: Any,
    dout: Any,
    layers: list[Any],
    others: Callable[[], dict[str, Any]] = dict,
) -> Case:
    x = Variable(x)
    y: Any = None

    def step() -> None:
        nonlocal y
        x.cleargrad()
        for layer in layers:
            layer.cleargrads()
        y = forward(x)
        y.grad = Variable(dout)
        y.backward()

    return Case(step, lambda: {"y": y.data, "dx": x.grad.data, **others()})


SIDE = DeZero()
