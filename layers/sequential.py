"""Layers made of layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from backend import profiling, threads
from backend.checks import instance, shown
from backend.types import Array
from kernels.activations import add
from layers import checks
from layers.activations import Relu
from layers.base import Layer, Shape


class _Composite(Layer):
    """A layer whose parameters are those of its sublayers, named ``sublayer.parameter``."""

    @property
    def params(self) -> dict[str, Array]:
        return {f"{name}.{key}": array for name, layer in self.sublayers() for key, array in layer.params.items()}

    @property
    def grads(self) -> dict[str, Array]:
        return {f"{name}.{key}": array for name, layer in self.sublayers() for key, array in layer.grads.items()}

    @property
    def state(self) -> dict[str, Array]:
        return {f"{name}.{key}": array for name, layer in self.sublayers() for key, array in layer.state.items()}


class Step(NamedTuple):
    """One step of a ``Sequential``'s forward.

    Attributes:
        range: the profiling range, named like the layer.
        layer: the layer that computes.
        relu: the Relu behind it that ``layer.forward_relu`` computes as well, or None.
    """

    range: profiling.Range
    layer: Layer
    relu: Relu | None


class Sequential(_Composite):
    """A chain of layers: each takes the output of the one before it.

    A Relu is fused with the layer before it where that layer has a ``forward_relu``: the results are the same, bit for
    bit. Which layers are fused is decided once, here, so the layers of a ``Sequential`` cannot be replaced later.

    Args:
        layers: the layers, named by class and place ("Convolution1", "Relu1", "Convolution2", …); or one dict of
            names to layers, in order.

    Attributes:
        layers: the layers by name; read-only.
        steps: what ``forward`` does, one ``Step`` after another.

    Raises:
        TypeError: an argument is not a ``layers.Layer``.
        ValueError: one layer object stands in two places, where it would forget the first of its two inputs.

    Examples:
        >>> from backend import xp
        >>> from layers import Affine, Relu, Sequential
        >>> chain = Sequential(Affine.of(3, 4), Relu(), Affine.of(4, 2))
        >>> chain.forward(xp.ones((5, 3), "float32")).shape, list(chain.layers)
        ((5, 2), ['Affine1', 'Relu1', 'Affine2'])
    """

    def __init__(self, *layers: Any) -> None:
        named = dict(layers[0]) if len(layers) == 1 and isinstance(layers[0], dict) else _named(layers)
        for name, layer in named.items():
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential takes layers derived from layers.Layer; {name!r} is {shown(layer)}")
            instance("Sequential: a layer's name", name, str, "a string")
        if len({id(layer) for layer in named.values()}) < len(named):
            raise ValueError("Sequential needs a different layer object in each place; one stands in two")
        self._layers: dict[str, Layer] = named
        self._prepare()

    @property
    def layers(self) -> Mapping[str, Layer]:
        return MappingProxyType(self._layers)

    def sublayers(self) -> list[tuple[str, Layer]]:
        return list(self._layers.items())

    def forward(self, x: Array) -> Array:
        if not self.steps:
            checks.floating("Sequential", x=x)
            return x.copy()  # an output is never its input
        with threads.single_threaded_blas():  # once here, not at every product
            for entered, layer, relu in self.steps:
                entered.push(x)
                try:
                    x = layer.forward(x) if relu is None else relu.save(*layer.forward_relu(x))  # type: ignore[misc]
                finally:
                    profiling.pop()
        return x

    def backward(self, dout: Array) -> Array:
        if not self.steps:
            checks.floating("Sequential.backward", dout=dout)
            return dout.copy()
        with threads.single_threaded_blas():
            for entered, layer in self._backward_steps:
                entered.push(dout)
                try:
                    dout = layer.backward(dout)
                finally:
                    profiling.pop()
        return dout

    def plan(self, fuse: bool = True) -> tuple[Step, ...]:
        """Return the steps of a forward, with or without fused Relus."""
        steps: list[Step] = []
        for name, layer in self._layers.items():
            if fuse and steps and isinstance(layer, Relu) and steps[-1].relu is None and _fuse(steps[-1].layer, layer):
                steps[-1] = steps[-1]._replace(relu=layer)
            else:
                steps.append(Step(profiling.Range(name, "forward", "layer"), layer, None))
        return tuple(steps)

    def _prepare(self) -> None:
        self.steps = self.plan()
        self._backward_steps = [
            (profiling.Range(name, "backward", "layer"), layer) for name, layer in reversed(self._layers.items())
        ]

    def output_shape(self, shape: Shape) -> Shape:
        for name, layer in self._layers.items():
            try:
                shape = layer.output_shape(shape)
            except ValueError as error:
                raise ValueError(f"layer {name!r}, {layer!r}: {error}") from error
        return shape

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, key: str | int) -> Any:
        return self._layers[key] if isinstance(key, str) else list(self._layers.values())[key]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k not in ("steps", "_backward_steps")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def __repr__(self) -> str:
        lines = "".join(f"  {name}: {_indented(layer)}\n" for name, layer in self._layers.items())
        return f"{type(self).__name__}(\n{lines})"


_BODY, _SHORTCUT = (
    {phase: profiling.Range(name, phase, "layer") for phase in ("forward", "backward")} for name in ("body", "shortcut")
)


class Residual(_Composite):
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
        with _BODY["forward"].of(x):
            y = self.body.forward(x)
        bypass = x
        if self.shortcut is not None:
            with _SHORTCUT["forward"].of(x):
                bypass = self.shortcut.forward(x)
        if y.shape != bypass.shape:
            raise ValueError(f"Residual cannot add body {y.shape} and shortcut {bypass.shape}")
        return add(y, bypass)

    def backward(self, dout: Array) -> Array:
        bypass = dout
        if self.shortcut is not None:
            with _SHORTCUT["backward"].of(dout):
                bypass = self.shortcut.backward(dout)
        with _BODY["backward"].of(dout):
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
        return f"{_indented(self.body)}{bypass}"


def _fuse(layer: Layer, relu: Relu) -> bool:
    """Return whether ``layer.forward_relu`` computes what the two layers do, one after the other.

    A subclass that overrides ``forward`` alone does something else than the ``forward_relu`` that it inherits.
    """
    kind, methods = type(layer), ("forward", "forward_relu")
    definers = [next(base for base in kind.__mro__ if method in vars(base)) for method in methods]
    return kind.forward_relu is not None and definers[0] is definers[1] and type(relu).forward is Relu.forward


def _named(layers: tuple[Any, ...]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    named = {}
    for layer in layers:
        kind = type(layer).__name__
        counts[kind] += 1
        named[f"{kind}{counts[kind]}"] = layer
    return named


def _indented(layer: Any) -> str:
    return repr(layer).replace("\n", "\n  ")
