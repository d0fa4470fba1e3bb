"""The workloads: training steps of networks and single operations, in float32, the same for every side."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend import random
from bench.sides.base import Case, Side
from bench.textbook import im2col
from layers import Convolution, Dropout
from training.models import DeepConvNet, MultiLayerNet, SimpleConvNet, TwoLayerNet, build_for


@dataclass(frozen=True)
class Workload:
    """Work for a method of ``bench.sides.Side``.

    Attributes:
        name: short, for tables and ``--only``.
        title: what it is.
        operation: the method.
        batch: samples.
        make: (batch, dropout) → the method's arguments, the same at every call. Without dropout its ratio is 0, so that
            sides with different random numbers compute the same.
        images: True if it works on images (N, C, H, W), False for rows.
        tolerance: the largest ‖difference‖ / ‖xpnet's values‖ of a side's values.
    """

    name: str
    title: str
    operation: str
    batch: int
    make: Callable[[int, bool], dict[str, Any]]
    tolerance: float = 1e-4
    images: bool = True

    def ways(self, side: Side) -> tuple[str, ...]:
        """Return the ways in which the side can do the work."""
        return side.ways(self.operation, self.images)

    def case(self, side: Side, way: str = "", batch: int | None = None, dropout: bool = True) -> Case | None:
        """Return the work for a side, with new state; None if the side cannot do it."""
        arguments = self.make(batch or self.batch, dropout)
        return getattr(side, self.operation)(**arguments, way=way)


class DisagreementError(Exception):
    """Two sides computed different values, so their times are not comparable."""


RELU_TOLERANCE = 5e-3
"""Tolerance of a ReLU's gradient: where its input is only a rounding error, in some elements of a million, the gradient
may be 0 or complete."""
DEEP_TOLERANCE = 3e-2
"""The same behind 19 layers with ReLU: against float64, the first layer's gradients in float32 were off by up to 8e-3
(xpnet) and 9e-3 (PyTorch)."""
UPDATE_TOLERANCE = 2e-2
"""Tolerance of a weight's change: Adam's first step is the gradient's sign, which rounding may decide."""


def first_values(workload: Workload, side: Side, way: str = "", batch: int | None = None) -> dict[str, np.ndarray]:
    """Return the values that a side computes in its first step, without dropout."""
    case = workload.case(side, way, batch, dropout=False)
    assert case is not None
    case.step()
    return case.values()


def check_agreement(
    workload: Workload, name: str, given: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> None:
    """Compare the first values of the side ``name`` with xpnet's.

    Raises:
        DisagreementError: a value differs by more than the tolerance, or there are no values.
    """
    if not given:
        raise DisagreementError(f"{workload.name}: {name} returned no values to compare")
    for what, value in given.items():
        tolerance = max(UPDATE_TOLERANCE if what == "update" else 0.0, workload.tolerance)
        off = distance(value, expected[what])
        if not off <= tolerance:
            raise DisagreementError(
                f"{workload.name}: {what} of {name} differs from xpnet's by {off:.1e}; expected at most {tolerance:g}"
            )


def distance(value: np.ndarray, expected: np.ndarray) -> float:
    """Return ‖value - expected‖ / ‖expected‖ in float64; infinite if the shapes differ."""
    if value.shape != expected.shape:
        return np.inf
    difference = np.linalg.norm(np.subtract(value, expected, dtype="float64"))
    return float(difference / max(float(np.linalg.norm(expected.astype("float64"))), 1e-30))


def workloads() -> list[Workload]:
    """Return all workloads."""
    return [
        *_TRAINING,
        _block("W4", "conv 64→64 3x3 + batch norm + relu, 64x64x32x32, with dx"),
        *_winograd(),
        Workload("W5", "ResNet-20, 3x32x32, batch 128, momentum", "training", 128, _RESNET20, DEEP_TOLERANCE),
        *_OPERATIONS,
    ]


def _training(network: Callable[[], Any], optimizer: str) -> Callable[[int, bool], dict[str, Any]]:
    def make(batch: int, dropout: bool) -> dict[str, Any]:
        random.seed(0)
        made, generator = network(), np.random.default_rng(0)
        for layer in made.layers.layers.values():
            if isinstance(layer, Dropout) and not dropout:
                layer.dropout_ratio = 0.0
        x = generator.random((batch, *made.input_dim), "float32")
        t = generator.integers(0, made.classes, batch, "int32")
        return {"network": made, "x": x, "t": t, "optimizer": optimizer}

    return make


def _simple_conv_net() -> SimpleConvNet:
    return SimpleConvNet(weight_init_std="he")


def _normal(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.standard_normal(shape, "float32")


def _scale_and_shift(generator: np.random.Generator, channels: int) -> dict[str, np.ndarray]:
    return {"gamma": generator.uniform(0.5, 1.5, channels).astype("float32"), "beta": _normal(generator, channels)}


def _block(name: str, title: str, **options: bool) -> Workload:
    def make(batch: int, dropout: bool) -> dict[str, Any]:
        generator = np.random.default_rng(0)
        shape = (batch, 64, 32, 32)
        W = _normal(generator, 64, 64, 3, 3) * np.float32((2 / 576) ** 0.5)
        arguments = {"x": _normal(generator, *shape), "W": W, "b": _normal(generator, 64)}
        return arguments | _scale_and_shift(generator, 64) | {"dout": _normal(generator, *shape)} | options

    return Workload(name, title, "convolution_block", 64, make, RELU_TOLERANCE)


def _winograd() -> list[Workload]:
    if "winograd" not in inspect.signature(Convolution).parameters:
        return []
    return [_block("W4-winograd", "W4 with winograd=True, others as they are", winograd=True)]


def _images(batch: int, dropout: bool) -> np.ndarray:
    return _normal(np.random.default_rng(0), batch, 64, 32, 32)


def _columns(order: str) -> Callable[[int, bool], dict[str, Any]]:
    return lambda batch, dropout: {"x": _images(batch, dropout), "size": 3, "pad": 1, "order": order}


def _image(order: str) -> Callable[[int, bool], dict[str, Any]]:
    def make(batch: int, dropout: bool) -> dict[str, Any]:
        x = _images(batch, dropout)
        return {"columns": im2col(x, 3, 1, 1), "shape": x.shape, "size": 3, "pad": 1, "order": order}

    return make


def _pooling(size: int, stride: int) -> Callable[[int, bool], dict[str, Any]]:
    def make(batch: int, dropout: bool) -> dict[str, Any]:
        x, out = _images(batch, dropout), (32 - size) // stride + 1
        dout = _normal(np.random.default_rng(1), batch, 64, out, out)
        return {"x": x, "dout": dout, "size": size, "stride": stride}

    return make


def _batch_norm(batch: int, dropout: bool) -> dict[str, Any]:
    generator = np.random.default_rng(1)
    x = _images(batch, dropout)
    return {"x": x, "dout": _normal(generator, *x.shape), **_scale_and_shift(generator, 64)}


def _scores(batch: int, dropout: bool) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {"x": _normal(generator, batch, 1000), "t": generator.integers(0, 1000, batch, "int32")}


_TRAINING = [
    Workload(name, title, "training", batch, _training(network, optimizer), RELU_TOLERANCE, images)
    for name, title, batch, network, optimizer, images in (
        ("W1a", "MLP 784-50-10, batch 100, SGD", 100, lambda: TwoLayerNet(784, 50, 10, "he"), "sgd", False),
        ("W1b", "MLP 784-512-512-10, batch 128, SGD", 128, lambda: MultiLayerNet(784, [512, 512], 10), "sgd", False),
        ("W2", "SimpleConvNet (30 5x5), 1x28x28, batch 100, Adam", 100, _simple_conv_net, "adam", True),
        ("W3", "DeepConvNet, 1x28x28, batch 128, Adam", 128, DeepConvNet, "adam", True),
    )
]

_RESNET20 = _training(lambda: build_for("ResNet20", (3, 32, 32), 10), "momentum")
_ON = "on (32, 64, 32, 32)"
_OPERATIONS = [
    Workload("im2col", f"im2col 3x3 pad 1 {_ON}, in the layers' order", "im2col", 32, _columns("HWC")),
    Workload("im2col-chw", f"im2col 3x3 pad 1 {_ON}, in the book's order", "im2col", 32, _columns("CHW")),
    Workload("col2im", f"col2im 3x3 pad 1 {_ON}, in the layers' order", "col2im", 32, _image("HWC")),
    Workload("col2im-chw", f"col2im 3x3 pad 1 {_ON}, in the book's order", "col2im", 32, _image("CHW")),
    Workload("pool2", f"max pooling 2x2/2 both ways {_ON}", "max_pooling", 32, _pooling(2, 2)),
    Workload("pool3", f"max pooling 3x3/2 both ways {_ON}", "max_pooling", 32, _pooling(3, 2)),
    Workload("bn-relu", f"batch norm + relu both ways {_ON}", "batch_norm_relu", 32, _batch_norm, RELU_TOLERANCE),
    Workload(
        "softmax", "softmax cross-entropy both ways on (128, 1000)", "softmax_cross_entropy", 128, _scores, images=False
    ),
]
