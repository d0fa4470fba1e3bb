"""The nodes of a computational graph by hand, as in the book: a product and a sum of two inputs."""

from __future__ import annotations

from numbers import Real
from typing import Any

from backend import is_array, require_same_device
from backend.checks import refusal
from kernels import activations
from kernels.core.layout import copy_channels_last
from layers.base import Layer


class MulLayer(Layer):
    """Product: out = x·y, for numbers or arrays of one shape; ``backward`` returns (dx, dy).

    Examples:
        >>> from layers import MulLayer
        >>> layer = MulLayer()
        >>> layer.forward(100, 2), layer.backward(1.1)
        (200, (2.2, 110.00000000000001))
    """

    def forward(self, x: Any, y: Any) -> Any:  # type: ignore[override]
        _check("MulLayer", x, y)
        return self.save(_multiply(x, y), x, y)

    def backward(self, dout: Any) -> tuple[Any, Any]:
        x, y = _saved(self, dout)
        return _multiply(dout, y), _multiply(dout, x)


class AddLayer(Layer):
    """Sum: out = x + y, for numbers or arrays of one shape; ``backward`` returns (dx, dy)."""

    def forward(self, x: Any, y: Any) -> Any:  # type: ignore[override]
        _check("AddLayer", x, y)
        return self.save(activations.add(x, y) if _shape(x) else x + y)

    def backward(self, dout: Any) -> tuple[Any, Any]:
        _saved(self, dout)
        return _copy(dout), _copy(dout)


def _saved(layer: Layer, dout: Any) -> Any:
    """Return what the layer kept. The gradient of an array may be one number, as in the book."""
    if isinstance(dout, Real) and not isinstance(dout, bool):
        return layer.saved()
    return layer.saved(dout)


def _multiply(x: Any, y: Any) -> Any:
    return activations.multiply(x, y) if _shape(x) else x * y


def _copy(x: Any) -> Any:
    if not _shape(x):
        return x * 1
    return copy_channels_last(x) if x.ndim == 4 else x.copy()


def _shape(x: Any) -> tuple[int, ...]:
    return getattr(x, "shape", ())


def _check(owner: str, x: Any, y: Any) -> None:
    for name, value in (("x", x), ("y", y)):
        if not is_array(value) and (isinstance(value, bool) or not isinstance(value, Real)):
            raise refusal(TypeError, f"{owner}: {name}", "a number or an array", value)
    require_same_device(x, y)
    if _shape(x) != _shape(y):
        raise ValueError(f"{owner} needs two inputs of one shape, got {_shape(x)} and {_shape(y)}")
    for value in (x, y):
        if is_array(value) and value.dtype.kind not in "fiu":  # the sum of bool would be a logical or
            raise TypeError(f"{owner} needs x and y as numbers, got an array of {value.dtype}")
