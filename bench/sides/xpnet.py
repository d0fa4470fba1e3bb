"""xpnet, through its public layers, models and optimizers."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend import threads
from backend.types import Array
from bench.sides.base import Case, Side
from kernels.col2im import col2im
from kernels.core.layout import channels_last
from kernels.core.window import Window
from kernels.im2col import im2col
from layers import BatchNormalization, Convolution, Pooling, Relu, Sequential, SoftmaxWithLoss
from training.optim.optimizers import by_name


class Xpnet(Side):
    name = "xpnet"

    def training(self, network: Any, x: Array, t: Array, optimizer: str, way: str = "") -> Case:
        rule = by_name(optimizer)
        loss: Any = None
        weights = next(iter(network.params))
        before = network.params[weights].copy()

        def step() -> None:
            nonlocal loss
            loss = network.step_gradients(x, t)
            rule.update(network.params, network.grads)

        def values() -> dict[str, np.ndarray]:
            after = network.params[weights]
            return {"loss": np.asarray(loss), "gradient": network.grads[weights].copy(), "update": after - before}

        return Case(step, values, threads.single_threaded_blas)  # as the training loop does

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
        chosen: dict[str, Any] = {"winograd": True} if winograd else {}
        convolution = Convolution(W.copy(), b.copy(), pad=1, **chosen)
        block = Sequential(convolution, BatchNormalization(gamma.copy(), beta.copy()), Relu())
        return _both_ways(block, x, dout, lambda: {"dW": convolution.dW})

    def im2col(self, x: Array, size: int, pad: int, order: str, way: str = "") -> Case:
        x, window = channels_last(x), Window(size, 1, pad)
        columns: Any = None

        def step() -> None:
            nonlocal columns
            columns = im2col(x, window, order)

        return Case(step, lambda: {"columns": columns if order == "CHW" else _reordered(columns, x.shape[1], size)})

    def col2im(self, columns: Array, shape: Any, size: int, pad: int, order: str, way: str = "") -> Case:
        window = Window(size, 1, pad)
        if order == "HWC":
            rows = columns.reshape(len(columns), shape[1], size * size).transpose(0, 2, 1)
            columns = np.ascontiguousarray(rows).reshape(columns.shape)
        image: Any = None

        def step() -> None:
            nonlocal image
            image = col2im(columns, shape, window, order)

        return Case(step, lambda: {"image": image})

    def max_pooling(self, x: Array, dout: Array, size: int, stride: int, way: str = "") -> Case:
        return _both_ways(Pooling(size, size, stride), x, dout)

    def batch_norm_relu(self, x: Array, gamma: Array, beta: Array, dout: Array, way: str = "") -> Case:
        normalization = BatchNormalization(gamma.copy(), beta.copy())
        return _both_ways(Sequential(normalization, Relu()), x, dout, lambda: {"dgamma": normalization.dgamma})

    def softmax_cross_entropy(self, x: Array, t: Array, way: str = "") -> Case:
        layer = SoftmaxWithLoss()
        loss: Any = None
        dx: Any = None

        def step() -> None:
            nonlocal loss, dx
            loss = layer.forward(x, t)
            dx = layer.backward()

        return Case(step, lambda: {"loss": np.asarray(loss), "dx": dx})


def _both_ways(layer: Any, x: Array, dout: Array, others: Any = dict) -> Case:
    x, dout = channels_last(x), channels_last(dout)
    y = dx = None

    def step() -> None:
        nonlocal y, dx
        dx = None  # as PyTorch's side lets go of x.grad
        y = layer.forward(x)
        dx = layer.backward(dout)

    return Case(step, lambda: {"y": y, "dx": dx, **others()})


def _reordered(columns: Array, channels: int, size: int) -> Any:
    return columns.reshape(-1, size * size, channels).transpose(0, 2, 1).reshape(columns.shape)


SIDE = Xpnet()
