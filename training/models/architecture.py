"""Describe layers as plain JSON, and make them again from it.

A layer is ``{"type": name, "arguments": {…}}``. The arguments are those of its constructor, taken from the attributes
of the same names: numbers, texts and lists as they are, a layer as ``{"layer": {…}}``, an array of parameters or state
by its shape, ``{"array": [3, 4], "dtype": "float32"}``, since its numbers are saved with the others. The name is that
in ``layers``, or ``module:Class`` for a class of the user's own, which is imported only where that is allowed.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy

import layers
from backend import is_array
from backend.checks import FLOATING, LARGEST_SIZE
from layers import Layer, Loss, Sequential
from layers.initializers import weights
from training.files import clipped

DEEPEST, MOST = 50, 10_000
"""The largest depth of nested layers, and the largest number of layers in a file."""

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def describe(layer: Layer) -> dict[str, Any]:
    """Return a layer, with all layers in it, in the types of JSON.

    Raises:
        ValueError: it cannot be made from its attributes; the message says what is missing.
    """
    kind = type(layer)
    if kind is Sequential:
        inside = {name: describe(each) for name, each in layer.sublayers()}
        return {"type": "Sequential", "layers": inside}
    arguments = {}
    for name in _parameters(kind):
        if not hasattr(layer, name):
            raise ValueError(f"{kind.__name__}.__init__ takes {name!r}, and the layer keeps no attribute of that name")
        arguments[name] = _encoded(layer, name, getattr(layer, name))
    return {"type": _name(kind), "arguments": arguments}


def rebuild(description: Any, allow_import: bool = False) -> Layer:
    """Return the layer of a description, with zeros for its arrays and nothing drawn at random.

    Call it inside ``layers.initializers.unfilled(shapes)``: then only arrays of these shapes can be made.

    Args:
        allow_import: import classes of the user's own, which runs their modules' code.

    Raises:
        ValueError: it is not the description of a layer, a class is not to be imported or cannot be, or a constructor
            refuses its arguments.

    Examples:
        >>> from layers import LeakyRelu
        >>> from training.models.architecture import describe, rebuild
        >>> describe(LeakyRelu(0.2))
        {'type': 'LeakyRelu', 'arguments': {'slope': 0.2}}
        >>> rebuild(describe(LeakyRelu(0.2)))
        LeakyRelu(slope 0.2)
    """
    return _Builder(allow_import).layer(description, 0)


class _Builder:
    def __init__(self, allow_import: bool) -> None:
        self._allow_import = allow_import
        self._left = MOST

    def layer(self, description: Any, depth: int) -> Layer:
        if not isinstance(description, Mapping) or not isinstance(name := description.get("type"), str):
            raise ValueError(f"expected a layer with its type, got {clipped(description)}")
        self._left -= 1
        if depth > DEEPEST or self._left < 0:
            raise ValueError(f"expected at most {MOST:,} layers, {DEEPEST} in each other")
        if name == "Sequential" and description.keys() == {"type", "layers"}:
            inside = description["layers"]
            if not isinstance(inside, Mapping):
                raise ValueError(f"expected the layers of a Sequential by name, got {clipped(inside)}")
            return Sequential({key: self.layer(each, depth + 1) for key, each in inside.items()})
        arguments = description.get("arguments")
        if description.keys() != {"type", "arguments"} or not isinstance(arguments, Mapping):
            raise ValueError(f"expected {clipped(name)} with its arguments, got {clipped(description)}")
        kind = _class(name, self._allow_import)
        unknown = [key for key in arguments if key not in _parameters(kind)]
        if unknown:
            raise ValueError(f"{name} takes {', '.join(_parameters(kind))}, not {clipped(unknown[0])}")
        given = {key: self._decoded(f"{name}.{key}", value, depth) for key, value in arguments.items()}
        try:
            return kind(**given)
        except (TypeError, LookupError, ArithmeticError, AttributeError) as error:
            raise ValueError(f"{name} cannot be made from {clipped(dict(arguments))}: {error}") from error

    def _decoded(self, name: str, value: Any, depth: int) -> Any:
        if isinstance(value, list):
            return tuple(self._decoded(name, item, depth) for item in value)
        if not isinstance(value, Mapping):
            return value
        if value.keys() == {"layer"}:
            return self.layer(value["layer"], depth + 1)
        if value.keys() == {"array", "dtype"}:
            return _zeros(name, value["array"], value["dtype"])
        if value.keys() == {"object"} and isinstance(value["object"], Mapping):
            return {key: self._decoded(name, item, depth) for key, item in value["object"].items()}
        raise ValueError(f"{name} is {clipped(value)}, expected a number, a text, a list, a layer or an array")


def _zeros(name: str, shape: Any, dtype: Any) -> Any:
    known = [str(each) for each in FLOATING]
    sizes = isinstance(shape, list) and all(type(size) is int and 0 <= size <= LARGEST_SIZE for size in shape)
    if not sizes or len(shape) > 32 or dtype not in known:
        raise ValueError(f"{name}: expected the shape and dtype of an array, got {clipped(shape)} of {clipped(dtype)}")
    return weights(tuple(shape), 1, 0.0, dtype)  # counted by `unfilled`


def _class(name: str, allow_import: bool) -> type[Layer]:
    """Return the class of layers that a type names.

    Raises:
        ValueError: there is none, or it is the user's own and may not be imported.
    """
    kind = getattr(layers, name, None) if name in layers.__all__ else None
    if kind is None and ":" in name:
        if not _PATH.fullmatch(name) or len(name) > 200:
            raise ValueError(f"expected a layer as module:Class, got {clipped(name)}")
        module, _, path = name.partition(":")
        if not allow_import and module.partition(".")[0] != "layers":
            raise ValueError(
                f"it has the layer {name}, a class that is not xpnet's: allow_import=True, or --allow-import, imports "
                "it, which runs its module's code"
            )
        try:
            kind = importlib.import_module(module)
            for part in path.split("."):
                kind = getattr(kind, part)
        except Exception as error:
            raise ValueError(f"the layer {name} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(kind, type) or not issubclass(kind, Layer):
        raise ValueError(f"{clipped(name)} is not a layer of xpnet")
    return kind


def _name(kind: type[Layer]) -> str:
    if getattr(layers, kind.__name__, None) is kind:
        return kind.__name__
    if "<" in kind.__qualname__:
        raise ValueError(f"the class {kind.__qualname__} cannot be imported: define it at the top of a module")
    return f"{kind.__module__}:{kind.__qualname__}"


def _parameters(kind: type[Layer]) -> list[str]:
    """Return the names of a constructor's arguments.

    Raises:
        ValueError: it takes any number of them, or some by place only.
    """
    found = inspect.signature(kind).parameters.values()
    free = [each for each in found if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD, each.POSITIONAL_ONLY)]
    if free and kind.__init__ is not object.__init__:
        raise ValueError(f"{kind.__name__}.__init__ takes {free[0]}: name each argument")
    return [each.name for each in found if each not in free]


def _encoded(layer: Layer, name: str, value: Any) -> Any:
    owner = f"{type(layer).__name__}.{name}"
    if isinstance(value, Layer):
        return {"layer": describe(value)}
    if is_array(value) and value.ndim:
        if not any(value is own for own in (*layer.params.values(), *layer.state.values())):
            raise ValueError(f"{owner} is an array that is neither a parameter nor state: name it in state_names")
        return {"array": list(value.shape), "dtype": value.dtype.name}
    if isinstance(value, (numpy.generic, numpy.ndarray)):
        value = value.item()
    if isinstance(value, (list, tuple)):
        return [_encoded(layer, name, item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"object": {key: _encoded(layer, name, item) for key, item in value.items()}}
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{owner} is a {type(value).__name__}, which JSON does not have")


def rebuild_loss(description: Any, allow_import: bool = False) -> Loss:
    """Return the loss of a description; errors as of ``rebuild``."""
    loss = rebuild(description, allow_import)
    if not isinstance(loss, Loss):
        raise ValueError(f"expected a loss, got {type(loss).__name__}")
    return loss
