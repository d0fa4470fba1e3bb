"""Freeze layers, so that a training leaves them as they are, and costs nothing for them."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from backend.checks import refusal
from layers.base import walk

if TYPE_CHECKING:
    from training.models.bound_layers import BoundLayers


def set_frozen(network: BoundLayers, patterns: tuple[str, ...], frozen: bool) -> None:
    """Freeze or unfreeze the layers whose places match a pattern, and all layers in them.

    Raises:
        TypeError: a pattern is not a string.
        ValueError: no layer matches one; nothing is changed.
    """
    places = [(place, layer) for place, layer in walk(network.layers) if place]
    chosen = []
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise refusal(TypeError, "pattern", "a layer's name, such as 'Convolution1' or 'Convolution*'", pattern)
        found = [layer for place, layer in places if fnmatchcase(place, pattern)]
        if not found:
            raise ValueError(f"no layer is called {pattern!r}; there are {', '.join(place for place, _ in places)}")
        chosen += found
    for layer in chosen:
        for _, inside in walk(layer):
            inside.frozen = frozen
    apply_frozen(network)


def apply_frozen(network: BoundLayers) -> None:
    """Tell parameters, gradients and layers which layers are frozen: as a network is made, and after each change.

    A backward ends at the first layer that learns: those before it need no gradient at all.
    """
    frozen = frozenset(f"{key}{number}" for _, number, leaf in network.leaves() for key in leaf.params if leaf.frozen)
    network.params.frozen = network.grads.frozen = frozen
    network.foreign_frozen = [
        f"{key}{number}"
        for _, number, leaf in network.leaves()
        if leaf.frozen and type(leaf).__module__.partition(".")[0] != "layers"
        for key in leaf.params
    ]
    for name in frozen:
        network.grads[name][...] = 0
    layers = list(network.layers.layers.values())
    learning = [any(leaf.params and not leaf.frozen for _, leaf in walk(layer)) for layer in layers]
    first = 0 if not frozen else learning.index(True) if True in learning else len(layers)
    for index, layer in enumerate(layers):
        layer.input_gradient = index != first
    network.layers.end_backward_at(first)


def matching(names: Mapping[str, str], pattern: str) -> list[str]:
    """Return the names of parameters that match a pattern, as "W1" or by their dotted names, as "Convolution1.W".

    A pattern without a dot that names a layer, such as "Convolution*", matches all its parameters.

    Args:
        names: dotted names by name.
    """
    return [
        name
        for name, dotted in names.items()
        if fnmatchcase(name, pattern) or fnmatchcase(dotted, pattern) or fnmatchcase(dotted, f"{pattern}.*")
    ]
