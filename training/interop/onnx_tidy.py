"""Shorten a chain of imported layers: fewer reshapings, and scalings inside of the weights beside them."""

from __future__ import annotations

import numpy

from backend import asnumpy
from layers import Affine, Flatten, Layer, MultiHeadAttention, Permute, PositionwiseAffine, Reshape
from layers.base import Shape
from training.interop.onnx_scaling import Scaling

Item = Layer | Scaling
"""A layer, or a product and sum with constants that is to become part of one."""


def tidied(items: list[Item], shape: Shape, dtype: str) -> list[Layer]:
    """Return layers that compute what ``items`` do, one after the other, on samples of ``shape``."""
    chain = _Chain(shape)
    for item in items:
        chain.add(item)
    plain = _Chain(shape)
    for item, _ in chain.items:
        for layer in item.as_layers(dtype) if isinstance(item, Scaling) else [item]:
            plain.add(layer)  # again: reshapings around a convolution that a scaling became
    return _with_last_products([layer for layer, _ in plain.items if isinstance(layer, Layer)])


def _with_last_products(layers: list[Layer]) -> list[Layer]:
    """Make the product behind attention without one its last one, as ``MultiHeadAttention`` has it."""
    made: list[Layer] = []
    for layer in layers:
        before = made[-1] if made else None
        if (
            isinstance(before, MultiHeadAttention)
            and isinstance(layer, PositionwiseAffine)
            and layer.W.shape == before.W_out.shape
            and numpy.array_equal(asnumpy(before.W_out), numpy.eye(len(layer.W)))
            and not before.b_out.any()
        ):
            before.W_out = layer.W
            before.b_out = before.b_out if layer.b is None else layer.b
        else:
            made.append(layer)
    return made


class _Chain:
    """Items with the shape of a sample before each."""

    def __init__(self, shape: Shape) -> None:
        self.items: list[tuple[Item, Shape]] = []
        self._shape = shape

    def add(self, item: Item) -> None:
        if isinstance(item, Scaling):
            self._scale(item)
        elif isinstance(item, (Reshape, Flatten)):
            self._reshape(item.output_shape(self._shape))
        elif isinstance(item, Permute):
            self._permute(item.axes)
        else:
            self._layer(item)

    def _append(self, item: Item) -> None:
        self.items.append((item, self._shape))
        if isinstance(item, Layer):
            self._shape = item.output_shape(self._shape)

    def _pop(self) -> None:
        _, self._shape = self.items.pop()

    def _ends_in(self, *kinds: type) -> bool:
        return bool(self.items) and isinstance(self.items[-1][0], kinds)

    def _reshape(self, shape: Shape) -> None:
        while self._ends_in(Reshape, Flatten):
            self._pop()
        if shape != self._shape:
            self._append(Flatten() if len(shape) == 1 else Reshape(shape))

    def _permute(self, axes: tuple[int, ...]) -> None:
        if self._ends_in(Permute):
            before: Permute = self.items[-1][0]  # type: ignore[assignment]
            axes = tuple(before.axes[axis - 1] for axis in axes)
            self._pop()
        if axes != tuple(range(1, len(axes) + 1)):
            self._append(Permute(axes))

    def _layer(self, layer: Layer) -> None:
        takes_any_shape = isinstance(layer, Affine)
        if takes_any_shape:
            self._drop_reshapings()
        if self._ends_in(Scaling):
            scaling: Scaling = self.items[-1][0]  # type: ignore[assignment]
            if scaling.into_layer_behind(layer):
                self._pop()
        if takes_any_shape:
            self._drop_reshapings()
        self._append(layer)

    def _drop_reshapings(self) -> None:
        while self._ends_in(Reshape, Flatten) and self.items[-1][1]:
            self._pop()

    def _scale(self, scaling: Scaling) -> None:
        """Add a scaling; where only numbers are moved since a layer with weights, or another scaling, change that."""
        index, moved = len(self.items), scaling
        while index and isinstance(self.items[index - 1][0], (Reshape, Flatten, Permute)):
            index -= 1
            layer, shape = self.items[index]
            if isinstance(layer, Permute):
                moved = moved.transposed(tuple(layer.axes.index(axis + 1) + 1 for axis in range(len(layer.axes))))
            else:
                moved = moved.reshaped(shape)
        before = self.items[index - 1][0] if index else None
        if isinstance(before, Scaling):
            self.items[index - 1] = before.then(moved), moved.shape
        elif before is None or not moved.into_layer_before(before):
            self._append(scaling)
