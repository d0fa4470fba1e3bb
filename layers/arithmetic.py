"""The nodes of a computational graph drawn by hand: a product and a sum of two inputs."""

from __future__ import annotations

from typing import Any

from kernels import activations
from layers.base import Layer


class MulLayer(Layer):
    """out = x·y, for numbers or arrays of one shape; ``backward`` returns (dx, dy)."""

    def forward(self, x: Any, y: Any) -> Any:  # type: ignore[override]
        self._keep(x, y)
        return _multiply(x, y)

    def backward(self, dout: Any) -> tuple[Any, Any]:
        x, y = self._recall()
        return _multiply(dout, y), _multiply(dout, x)


class AddLayer(Layer):
    """out = x + y, for numbers or arrays of one shape; ``backward`` returns (dx, dy)."""

    def forward(self, x: Any, y: Any) -> Any:  # type: ignore[override]
        return activations.add(x, y) if _is_batch_of_images(x) else x + y

    def backward(self, dout: Any) -> tuple[Any, Any]:
        return _multiply(dout, 1), _multiply(dout, 1)


def _multiply(x: Any, y: Any) -> Any:
    return activations.multiply(x, y) if _is_batch_of_images(x) and _is_batch_of_images(y) else x * y


def _is_batch_of_images(x: Any) -> bool:
    return getattr(x, "ndim", 0) == 4
