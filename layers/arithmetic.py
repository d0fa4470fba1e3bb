"""The nodes of a computational graph drawn by hand: a product and a sum of two inputs."""

from __future__ import annotations

from typing import Any

from kernels import activations
from kernels.layout import copy_channels_last
from layers.base import Layer


class MulLayer(Layer):
    """out = x·y, for numbers or arrays of one shape; ``backward`` returns (dx, dy)."""

    def forward(self, x: Any, y: Any) -> Any:  # type: ignore[override]
        _check("MulLayer", x, y)
        return self.save_for_backward(_multiply(x, y), x, y)

    def backward(self, dout: Any) -> tuple[Any, Any]:
        x, y = self.saved_for_backward(dout)
        return _multiply(dout, y), _multiply(dout, x)


class AddLayer(Layer):
    """out = x + y, for numbers or arrays of one shape; ``backward`` returns (dx, dy)."""

    def forward(self, x: Any, y: Any) -> Any:  # type: ignore[override]
        _check("AddLayer", x, y)
        return self.save_for_backward(activations.add(x, y) if _shape(x) else x + y)

    def backward(self, dout: Any) -> tuple[Any, Any]:
        self.saved_for_backward(dout)
        return _copy(dout), _copy(dout)


def _multiply(x: Any, y: Any) -> Any:
    return activations.multiply(x, y) if _shape(x) else x * y


def _copy(x: Any) -> Any:
    if not _shape(x):
        return x * 1
    return copy_channels_last(x) if x.ndim == 4 else x.copy()


def _shape(x: Any) -> tuple[int, ...]:
    return getattr(x, "shape", ())


def _check(owner: str, x: Any, y: Any) -> None:
    if _shape(x) != _shape(y):
        raise ValueError(f"{owner} needs two inputs of one shape, got {_shape(x)} and {_shape(y)}")
    for value in (x, y):
        if getattr(value, "dtype", None) == "bool":  # whose sum would be a logical or
            raise TypeError(f"{owner} needs numbers, got an array of {value.dtype}")
