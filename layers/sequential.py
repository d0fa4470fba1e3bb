"""Layers made of layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from backend import profiling
from backend.checks import flag, instance, shown
from backend.types import Array
from layers import checks
from layers.activations import Relu
from layers.base import Layer, Shape
from layers.normalization import BatchNormalization


class Composite(Layer):
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
        relu: the Relu behind it that ``layer.forward_relu`` computes as well, or, of a backward, whose gradient
            ``layer.backward_relu`` takes; or None.
        normalization: the batch normalization behind it, whose statistics ``layer.forward_measured`` takes; or None.
    """

    range: profiling.Range
    layer: Layer
    relu: Relu | None = None
    normalization: BatchNormalization | None = None


class Sequential(Composite):
    """A chain of layers: each takes the output of the one before it.

    A Relu is fused with the layer before it where that layer has a ``forward_relu``: the results are the same, bit for
    bit. A batch's statistics are taken by the layer before a BatchNormalization where that has a ``forward_measured``:
    the same up to the order of their sums. Which layers are fused is decided once, here, so the layers of a
    ``Sequential`` cannot be replaced later.

    Args:
        layers: the layers, named by class and place ("Convolution1", "Relu1", "Convolution2", …); or one dict of
            names to layers, in order.

    Attributes:
        layers: the layers by name; read-only.
        steps: what ``forward`` does, one ``Step`` after another.
        backward_steps: what ``backward`` does.

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
        return run(self.steps, x)

    def backward(
        self, dout: Array, filled: Callable[[Layer], None] | None = None, *, forgetting: bool = False
    ) -> Array:
        """Return the gradient of the latest input.

        Args:
            filled: called with each layer whose gradients are done; or None.
            forgetting: True to let each layer forget its forward once its backward is done, as training steps do: the
                gradients then take the memory of the activations. There is no second backward.

        Raises:
            TypeError: ``forgetting`` is neither True nor False.
        """
        if forgetting is not True and forgetting is not False:
            forgetting = flag("forgetting", forgetting)
        if not self.steps:
            checks.floating("Sequential.backward", dout=dout)
            return dout.copy()
        for entered, layer, relu, _ in self.backward_steps:
            entered.push(dout)
            try:
                if relu is None:
                    dout = layer.backward(dout)
                else:
                    dout = layer.backward_relu(dout, relu.saved(dout)[0])  # type: ignore[misc]
            finally:
                profiling.pop()
            if forgetting:
                layer.forget()
                if relu is not None:
                    relu.forget()
            if filled is not None:
                filled(layer)
        return dout

    def plan(self, phase: Literal["forward", "backward"] = "forward", fuse: bool = True) -> tuple[Step, ...]:
        """Return the steps of a forward or a backward, in the order of the layers, with or without fused ones."""
        steps: list[Step] = []
        for name, layer in self._layers.items():
            before = steps[-1] if fuse and steps and steps[-1].relu is None else None
            if before is not None and isinstance(layer, Relu) and _fuse(before.layer, layer, phase):
                steps[-1] = before._replace(relu=layer)
                continue
            if before is not None and type(layer) is BatchNormalization and _has(before.layer, phase, "measured"):
                steps[-1] = before._replace(normalization=layer)
            steps.append(Step(profiling.Range(name, phase, "layer"), layer))
        return tuple(steps)

    def _prepare(self) -> None:
        self.steps = self.plan()
        self.backward_steps = self.plan("backward")[::-1]

    def end_backward_at(self, first: int) -> None:
        """Let ``backward`` end at the layer with this index; 0 for all layers. It returns what the layer returns."""
        steps, left = self.plan("backward")[::-1], list(self._layers.values())[:first]
        self.backward_steps = tuple(step for step in steps if not any(step.layer is layer for layer in left))

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
        return {k: v for k, v in super().__getstate__().items() if k not in ("steps", "backward_steps")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def __repr__(self) -> str:
        lines = "".join(f"  {name}: {indented(layer)}\n" for name, layer in self._layers.items())
        return f"{type(self).__name__}(\n{lines})"


def run(steps: Sequence[Step], x: Array) -> Array:
    """Return what some steps of a forward, one after another, make of ``x``."""
    for entered, layer, relu, normalization in steps:
        entered.push(x)
        try:
            if relu is not None:
                x = relu.save(*layer.forward_relu(x))  # type: ignore[misc]
            elif normalization is not None and normalization.takes_moments:
                x, moments = layer.forward_measured(x)  # type: ignore[misc]
                normalization.expect(x, moments)
            else:
                x = layer.forward(x)
        finally:
            profiling.pop()
    return x


def _fuse(layer: Layer, relu: Relu, phase: str) -> bool:
    """Return whether ``layer.forward_relu`` (``backward_relu``) computes what the two layers do, one by one."""
    return _has(layer, phase, "relu") and getattr(type(relu), phase) is getattr(Relu, phase)


def _has(layer: Layer, phase: str, more: str) -> bool:
    """Return whether ``layer`` has a forward (backward) that does something more, such as ``forward_relu``.

    A subclass that overrides ``forward`` alone does something else than the ``forward_relu`` that it inherits.
    """
    kind, methods = type(layer), (phase, f"{phase}_{more}")
    if getattr(kind, methods[1], None) is None:
        return False
    definers = [next(base for base in kind.__mro__ if method in vars(base)) for method in methods]
    return definers[0] is definers[1]


def _named(layers: tuple[Any, ...]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    named = {}
    for layer in layers:
        kind = type(layer).__name__
        counts[kind] += 1
        named[f"{kind}{counts[kind]}"] = layer
    return named


def indented(layer: Any) -> str:
    """Return a layer's ``repr`` as it stands inside that of the layer around it."""
    return repr(layer).replace("\n", "\n  ")
