"""Layers made of layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from backend import profiling, threads
from backend.checks import flag, instance, shown
from kernels.activations import add
from layers import checks
from layers.activations import Relu
from layers.base import Layer, Shape


class _Composite(Layer):
    """A layer whose parameters are those of its sublayers, named ``sublayer.parameter``."""

    takes_train_flg = True

    @property
    def params(self) -> dict[str, Any]:
        return {f"{name}.{key}": array for name, layer in self.sublayers() for key, array in layer.params.items()}

    @property
    def grads(self) -> dict[str, Any]:
        return {f"{name}.{key}": array for name, layer in self.sublayers() for key, array in layer.grads.items()}

    @property
    def state(self) -> dict[str, Any]:
        return {f"{name}.{key}": array for name, layer in self.sublayers() for key, array in layer.state.items()}


class Sequential(_Composite):
    """Layers in a row: each takes what the one before it made.

    Args:
        layers: the layers, named by class and place ("Convolution1", "Relu1", "Convolution2", …); or one dict of
            names to layers, in order.

    Raises:
        TypeError: an argument is no ``layers.Layer``.
        ValueError: the same layer object stands in two places: it would forget the first of its two inputs.
    """

    def __init__(self, *layers: Any) -> None:
        if len(layers) == 1 and isinstance(layers[0], dict):
            named = dict(layers[0])
        else:
            named = _named(layers)
        for name, layer in named.items():
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential takes layers derived from layers.Layer; {name!r} is {shown(layer)}")
            instance("Sequential: a layer's name", name, str, "a string")
        if len({id(layer) for layer in named.values()}) < len(named):
            raise ValueError("Sequential needs a layer object of its own for each place; one stands in two")
        self.layers: dict[str, Layer] = named
        self._build_ranges()

    def sublayers(self) -> list[tuple[str, Layer]]:
        return list(self.layers.items())

    def forward(self, x: Any, train_flg: bool | None = None) -> Any:
        if not self.layers:
            checks.floating("Sequential", x=x)
            return x.copy()  # an output is never its input
        names, train_flg = list(self.layers), _mode(train_flg)
        with threads.single_threaded_blas():  # once here, not at every product
            while names:
                name = names.pop(0)
                layer, following = self.layers[name], self.layers[names[0]] if names else None
                self._forward_ranges[name].push(x)
                try:
                    if type(following) is Relu and layer.forward_relu is not None:
                        del names[0]
                        arguments = (x, train_flg) if layer.takes_train_flg else (x,)
                        x = following.follow(*layer.forward_relu(*arguments))
                    else:
                        x = _run(layer, x, train_flg)
                finally:
                    profiling.pop()
        return x

    def backward(self, dout: Any) -> Any:
        if not self.layers:
            checks.floating("Sequential.backward", dout=dout)
            return dout.copy()
        with threads.single_threaded_blas():
            for name in reversed(self.layers):
                self._backward_ranges[name].push(dout)
                try:
                    dout = self.layers[name].backward(dout)
                finally:
                    profiling.pop()
        return dout

    def output_shape(self, shape: Shape) -> Shape:
        for name, layer in self.layers.items():
            try:
                shape = layer.output_shape(shape)
            except ValueError as error:
                raise ValueError(f"layer {name!r}, {layer!r}: {error}") from error
        return shape

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, key: str | int) -> Any:
        return self.layers[key] if isinstance(key, str) else list(self.layers.values())[key]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k not in ("_forward_ranges", "_backward_ranges")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._build_ranges()

    def _build_ranges(self) -> None:
        self._forward_ranges = {name: profiling.Range(name, "forward", "layer") for name in self.layers}
        self._backward_ranges = {name: profiling.Range(name, "backward", "layer") for name in self.layers}

    def __repr__(self) -> str:
        lines = "".join(f"  {name}: {_indented(layer)}\n" for name, layer in self.layers.items())
        return f"{type(self).__name__}(\n{lines})"


_BODY, _SHORTCUT = (
    {phase: profiling.Range(name, phase, "layer") for phase in ("forward", "backward")} for name in ("body", "shortcut")
)


class Residual(_Composite):
    """y = body(x) + shortcut(x) (He et al., "Deep residual learning for image recognition", CVPR 2016).

    Args:
        body: a layer.
        shortcut: a layer, such as a 1×1 convolution where the body changes the shape; None passes x on.

    Raises:
        TypeError: an argument is no layer.
        ValueError: both are one object.
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        self.body = instance("Residual: body", body, Layer, "a layer")
        self.shortcut = instance("Residual: shortcut", shortcut, (Layer, type(None)), "a layer or None")
        if body is shortcut:
            raise ValueError("Residual needs a layer object of its own for each of body and shortcut; one is both")

    def sublayers(self) -> list[tuple[str, Layer]]:
        return [("body", self.body)] + ([] if self.shortcut is None else [("shortcut", self.shortcut)])

    def forward(self, x: Any, train_flg: bool | None = None) -> Any:
        train_flg = _mode(train_flg)
        with _BODY["forward"].of(x):
            y = _run(self.body, x, train_flg)
        aside = x
        if self.shortcut is not None:
            with _SHORTCUT["forward"].of(x):
                aside = _run(self.shortcut, x, train_flg)
        if y.shape != aside.shape:
            raise ValueError(f"Residual cannot add body {y.shape} and shortcut {aside.shape}")
        return add(y, aside)

    def backward(self, dout: Any) -> Any:
        aside = dout
        if self.shortcut is not None:
            with _SHORTCUT["backward"].of(dout):
                aside = self.shortcut.backward(dout)
        with _BODY["backward"].of(dout):
            dx = self.body.backward(dout)
        return add(dx, aside)

    def output_shape(self, shape: Shape) -> Shape:
        body = self.body.output_shape(shape)
        aside = shape if self.shortcut is None else self.shortcut.output_shape(shape)
        if body != aside:
            raise ValueError(f"body makes {body} of {shape}, shortcut {aside}: they cannot be added")
        return body

    def describe(self) -> str:
        aside = "" if self.shortcut is None else f", {self.shortcut!r}"
        return f"{_indented(self.body)}{aside}"


def _mode(train_flg: Any) -> bool | None:
    return None if train_flg is None else flag("train_flg", train_flg)


def _run(layer: Layer, x: Any, train_flg: bool | None) -> Any:
    return layer.forward(x, train_flg) if layer.takes_train_flg else layer.forward(x)  # type: ignore[call-arg]


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
