"""The sum of what a layer makes of its input and the input itself, or a shortcut of it."""

from __future__ import annotations

from typing import Any

from backend import profiling
from backend.checks import instance
from backend.types import Array
from kernels.activations import add, relu_in_place
from layers.base import Layer, Shape
from layers.normalization import BatchNormalization
from layers.sequential import Composite, Sequential, indented, run

BODY, _SHORTCUT = (
    {phase: profiling.Range(name, phase, "layer") for phase in ("forward", "backward")} for name in ("body", "shortcut")
)


class Residual(Composite):
    """y = body(x) + shortcut(x) (He et al., "Deep residual learning for image recognition", CVPR 2016).

    Args:
        body: a layer.
        shortcut: a layer, such as a 1×1 convolution where the body changes the shape; None passes x on.

    Attributes:
        body, shortcut: the layers; read-only.

    Raises:
        TypeError: an argument is not a layer.
        ValueError: both are one object.

    Examples:
        >>> from backend import xp
        >>> from layers import Relu, Residual
        >>> Residual(Relu()).forward(xp.asarray([[-1.0, 2.0]]))
        array([[-1.,  4.]])
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        self._body: Layer = instance("Residual: body", body, Layer, "a layer")
        self._shortcut: Layer | None = instance("Residual: shortcut", shortcut, (Layer, type(None)), "a layer or None")
        if body is shortcut:
            raise ValueError("Residual needs different layer objects as body and shortcut; one is both")

    @property
    def body(self) -> Layer:
        return self._body

    @property
    def shortcut(self) -> Layer | None:
        return self._shortcut

    def sublayers(self) -> list[tuple[str, Layer]]:
        return [("body", self.body)] + ([] if self.shortcut is None else [("shortcut", self.shortcut)])

    def forward(self, x: Array) -> Array:
        with BODY["forward"].of(x):
            y = self.body.forward(x)
        bypass = self._bypass(x)
        self._check_sum(y, bypass)
        return add(y, bypass)

    def forward_relu(self, x: Array) -> tuple[Array, Array]:
        body: Any = self.body
        last = body.steps[-1] if type(body) is Sequential and body.steps else None
        if last is None or last.relu is not None or type(last.layer) is not BatchNormalization:
            y = self.forward(x)
            return y, relu_in_place(y)
        with BODY["forward"].of(x):
            y = run(body.steps[:-1], x)
        bypass = self._bypass(x)
        self._check_sum(y, bypass)  # normalization keeps the shape
        with BODY["forward"].of(y), last.range.of(y):
            return last.layer.forward_added_relu(y, bypass)

    def _bypass(self, x: Array) -> Array:
        if self.shortcut is None:
            return x
        with _SHORTCUT["forward"].of(x):
            return self.shortcut.forward(x)

    @staticmethod
    def _check_sum(y: Array, bypass: Array) -> None:
        if y.shape != bypass.shape:
            raise ValueError(f"Residual cannot add body {y.shape} and shortcut {bypass.shape}")

    def backward(self, dout: Array) -> Array:
        bypass = dout
        if self.shortcut is not None:
            with _SHORTCUT["backward"].of(dout):
                bypass = self.shortcut.backward(dout)
        with BODY["backward"].of(dout):
            dx = self.body.backward(dout)
        return add(dx, bypass)

    def output_shape(self, shape: Shape) -> Shape:
        body = self.body.output_shape(shape)
        bypass = shape if self.shortcut is None else self.shortcut.output_shape(shape)
        if body != bypass:
            raise ValueError(f"body makes {body} of {shape}, shortcut {bypass}: they cannot be added")
        return body

    def describe(self) -> str:
        bypass = "" if self.shortcut is None else f", {self.shortcut!r}"
        return f"{indented(self.body)}{bypass}"
