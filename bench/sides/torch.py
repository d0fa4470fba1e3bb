"""PyTorch on the CPU, in eager mode, with a step as an expert would write it.

Several memory formats and implementations of the optimizer are tried, and the fastest is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own custom)

from bench.sides.base import Case, Side

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
IMPLEMENTATIONS: dict[str, dict[str, bool]] = {
    "for-loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


class Torch(Side):
    name = "torch"

    def __init__(self) -> None:
        torch.set_num_interop_threads(1)

    def set_threads(self, count: int) -> None:
        torch.set_num_threads(count)

    def ways(self, operation: str, images: bool) -> tuple[str, ...]:
        if operation == "training":
            return tuple(f"{memory} {update}" for memory in _formats(images) for update in IMPLEMENTATIONS)
        return _formats(operation in ("convolution_block", "max_pooling", "batch_norm_relu"))

    def training(self, network: Any, x: Any, t: Any, optimizer: str, way: str = "") -> Case:
        memory, implementation = way.split()
        model = nn.Sequential(*modules_of(network.layers, len(network.input_dim) == 3)).train()
        x, t = torch.from_numpy(x), torch.from_numpy(t).long()
        if x.ndim == 4:
            model, x = model.to(memory_format=FORMATS[memory]), x.contiguous(memory_format=FORMATS[memory])
        weights = next(model.parameters())
        before = weights.detach().clone()
        kind: Any = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
        options = {"sgd": {"lr": 0.01}, "momentum": {"lr": 0.01, "momentum": 0.9}, "adam": {"lr": 0.001}}[optimizer]
        rule = kind(model.parameters(), **options, **IMPLEMENTATIONS[implementation])
        run = self.parallel(model)
        loss: Any = None

        def step() -> None:
            nonlocal loss
            rule.zero_grad(set_to_none=True)
            loss = F.cross_entropy(run(x), t)
            loss.backward()
            rule.step()

        def as_xpnet(array: Any) -> np.ndarray:
            array = array.detach()
            return (array.T if array.ndim == 2 else array).numpy().copy()

        def values() -> dict[str, np.ndarray]:
            return {
                "loss": loss.detach().numpy(),
                "gradient": as_xpnet(weights.grad),
                "update": as_xpnet(weights - before),
            }

        return Case(step, values)

    def parallel(self, model: Any) -> Any:
        """Return what is called to run a model: the model itself, in one process."""
        return model

    def convolution_block(
        self, x: Any, W: Any, b: Any, gamma: Any, beta: Any, dout: Any, winograd: bool = False, way: str = ""
    ) -> Case:
        convolution = _with(nn.Conv2d(W.shape[1], len(W), W.shape[2], padding=1), W, b)
        block = nn.Sequential(convolution, _with(nn.BatchNorm2d(len(gamma)), gamma, beta), nn.ReLU(inplace=True))
        return _both_ways(block, x, dout, FORMATS[way], lambda: {"dW": convolution.weight.grad.numpy()})

    def im2col(self, x: Any, size: int, pad: int, order: str, way: str = "") -> Case:
        x, channels = torch.from_numpy(x), x.shape[1]
        columns: Any = None

        def step() -> None:
            nonlocal columns
            columns = F.unfold(x, size, padding=pad)  # (N, C·FH·FW, OH·OW)

        return Case(step, lambda: {"columns": columns.transpose(1, 2).reshape(-1, channels * size * size).numpy()})

    def col2im(self, columns: Any, shape: Any, size: int, pad: int, order: str, way: str = "") -> Case:
        turned = torch.from_numpy(columns).view(shape[0], -1, columns.shape[1]).transpose(1, 2).contiguous()
        image: Any = None

        def step() -> None:
            nonlocal image
            image = F.fold(turned, shape[2:], size, padding=pad)

        return Case(step, lambda: {"image": image.numpy()})

    def max_pooling(self, x: Any, dout: Any, size: int, stride: int, way: str = "") -> Case:
        return _both_ways(nn.MaxPool2d(size, stride), x, dout, FORMATS[way])

    def batch_norm_relu(self, x: Any, gamma: Any, beta: Any, dout: Any, way: str = "") -> Case:
        normalization = _with(nn.BatchNorm2d(len(gamma)), gamma, beta)
        block = nn.Sequential(normalization, nn.ReLU(inplace=True))
        return _both_ways(block, x, dout, FORMATS[way], lambda: {"dgamma": normalization.weight.grad.numpy()})

    def softmax_cross_entropy(self, x: Any, t: Any, way: str = "") -> Case:
        x, t = torch.from_numpy(x.copy()).requires_grad_(), torch.from_numpy(t).long()
        loss: Any = None

        def step() -> None:
            nonlocal loss
            x.grad = None
            loss = F.cross_entropy(x, t)
            loss.backward()

        return Case(step, lambda: {"loss": loss.detach().numpy(), "dx": x.grad.numpy()})


def _formats(matter: bool) -> tuple[str, ...]:
    return tuple(FORMATS) if matter else ("contiguous",)


def _both_ways(block: Any, x: Any, dout: Any, memory: Any, others: Callable[[], dict[str, Any]] = dict) -> Case:
    block = block.train().to(memory_format=memory)
    x = torch.from_numpy(x).clone(memory_format=memory).requires_grad_()
    dout = torch.from_numpy(dout).contiguous(memory_format=memory)
    parameters = list(block.parameters())
    y: Any = None

    def step() -> None:
        nonlocal y
        x.grad = None
        for parameter in parameters:
            parameter.grad = None
        y = block(x)
        y.backward(dout)

    return Case(step, lambda: {"y": y.detach().numpy(), "dx": x.grad.numpy(), **others()})


class _Residual(nn.Module):
    def __init__(self, body: Any, shortcut: Any) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Any) -> Any:
        y, bypass = self.body(x), self.shortcut(x)
        return y + bypass if isinstance(self.body[-1], nn.ReLU) else y.add_(bypass)  # a ReLU's backward reads y


class _Times(nn.Module):
    """Makes of PyTorch's dropout the book's, which scales in evaluation and not in training."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Any) -> Any:
        return x * self.factor


def modules_of(layers: Any, images: bool) -> list[Any]:
    """Return PyTorch's modules for a ``Sequential``, with copies of its parameters.

    Args:
        images: the inputs are images (N, C, H, W): what is affine takes them flattened.

    Raises:
        ValueError: a layer has no counterpart here.
    """
    modules: list[Any] = []
    for layer in layers.layers.values():
        match type(layer).__name__:
            case "Affine":
                modules += [nn.Flatten()] if images else []
                images = False
                modules.append(_with(nn.Linear(*layer.W.shape), layer.W.T, layer.b))
            case "Convolution":
                filters, channels, *size = layer.W.shape
                shell = nn.Conv2d(
                    channels * layer.groups, filters, size, layer.stride, layer.pad, layer.dilation, layer.groups,
                    bias=layer.b is not None,
                )  # fmt: skip
                modules.append(_with(shell, layer.W, layer.b))
            case "BatchNormalization":
                kind = nn.BatchNorm2d if images else nn.BatchNorm1d
                modules.append(_with(kind(len(layer.gamma)), layer.gamma, layer.beta))
            case "Residual":
                shortcut = modules_of(layer.shortcut, images) if layer.shortcut is not None else []
                modules.append(_Residual(nn.Sequential(*modules_of(layer.body, images)), nn.Sequential(*shortcut)))
            case "Relu":
                modules.append(nn.ReLU(inplace=True))
            case "Pooling":
                size, ceil = (layer.pool_h, layer.pool_w), layer.rounding == "ceil"
                modules.append(nn.MaxPool2d(size, layer.stride, layer.pad, layer.dilation, ceil_mode=ceil))
            case "GlobalAveragePooling":
                modules.append(nn.AdaptiveAvgPool2d(1))
            case "Dropout":
                modules.append(nn.Dropout(layer.dropout_ratio))
                modules += [] if layer.inverted else [_Times(1 - layer.dropout_ratio)]
            case name:
                raise ValueError(f"the bench has no PyTorch counterpart of {name}")
    return modules


def _with(module: Any, weight: np.ndarray, bias: np.ndarray | None) -> Any:
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        if bias is not None:
            module.bias.copy_(torch.from_numpy(bias))
    return module


SIDE = Torch()
