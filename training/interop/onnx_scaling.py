"""Products and sums with constants, which the import of ONNX makes part of the layers around them."""

from __future__ import annotations

import math

import numpy

from backend import asarray, asnumpy
from layers import Affine, Convolution, ConvolutionTranspose, Layer, Reshape
from layers.base import Shape


class Scaling:
    """y = factor·x + shift, a number of each for each number of a sample.

    Args:
        shape: of a sample.
        factor, shift: float64, or what broadcasts to that shape.
    """

    def __init__(self, shape: Shape, factor: numpy.ndarray | float, shift: numpy.ndarray | float) -> None:
        self.shape = shape
        self.factor = numpy.broadcast_to(numpy.asarray(factor, "float64"), shape)
        self.shift = numpy.broadcast_to(numpy.asarray(shift, "float64"), shape)

    def then(self, other: Scaling) -> Scaling:
        """Return what both do, this one first."""
        return Scaling(self.shape, self.factor * other.factor, self.shift * other.factor + other.shift)

    def reshaped(self, shape: Shape) -> Scaling:
        """Return the same before, or behind, a layer that reshapes."""
        return Scaling(shape, self.factor.reshape(shape), self.shift.reshape(shape))

    def transposed(self, axes: tuple[int, ...]) -> Scaling:
        """Return the same behind a ``Permute`` of these axes."""
        order = [axis - 1 for axis in axes]
        factor = self.factor.transpose(order)
        return Scaling(factor.shape, factor, self.shift.transpose(order))

    def into_layer_before(self, layer: Layer) -> bool:
        """Change the weights of the layer whose output is scaled; return whether they could be."""
        if not isinstance(layer, (Affine, Convolution, ConvolutionTranspose)):
            return False
        if not all(_is_even(array) for array in (self.factor, self.shift)):
            return False
        factor, shift = (array.reshape(len(array), -1)[:, 0] for array in (self.factor, self.shift))
        weight = asnumpy(layer.W)
        along = (-1, 1, 1, 1) if isinstance(layer, Convolution) else (-1, 1, 1)
        layer.W = _as(layer, weight * (factor if isinstance(layer, Affine) else factor.reshape(along)))
        if layer.b is not None or shift.any():
            bias = 0 if layer.b is None else asnumpy(layer.b).astype("float64")
            layer.b = _as(layer, bias * factor + shift)
        return True

    def into_layer_behind(self, layer: Layer) -> bool:
        """Change the weights of the layer whose input is scaled, by factors alone; return whether they could be."""
        if self.shift.any():
            return False
        if isinstance(layer, Affine):
            layer.W = _as(layer, asnumpy(layer.W) * self.factor.reshape(-1, 1))
            return True
        if not isinstance(layer, Convolution) or not _is_even(self.factor):
            return False
        factor, weight = self.factor[:, 0, 0], asnumpy(layer.W)
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
        grouped = grouped * factor.reshape(layer.groups, 1, -1, 1, 1)
        layer.W = _as(layer, grouped.reshape(weight.shape))
        return True

    def as_layers(self, dtype: str) -> list[Layer]:
        """Return it as a depthwise 1×1 convolution, with a channel for each number that differs; [] for y = x."""
        if (self.factor == 1).all() and not self.shift.any():
            return []
        first = 1 if len(self.shape) == 3 else 0  # images keep their channels
        axes = [axis for axis, size in enumerate(self.shape) if size > 1 and not _is_even_along(self, axis)]
        leading = max(first, *(axis + 1 for axis in axes)) if axes else first
        channels = math.prod(self.shape[:leading])
        flat = (channels, math.prod(self.shape[leading:]), 1)
        factor, shift = (array.reshape(channels, -1)[:, :1] for array in (self.factor, self.shift))
        convolution = Convolution(
            asarray(factor.reshape(channels, 1, 1, 1).astype(dtype)),
            asarray(shift.reshape(channels).astype(dtype)) if shift.any() else None,
            groups=channels,
        )
        if len(self.shape) == 3 and leading == 1:
            return [convolution]
        return [Reshape(flat), convolution, Reshape(self.shape)]


def _is_even(array: numpy.ndarray) -> bool:
    """Return whether the numbers of each channel, along the first axis, are equal."""
    flat = array.reshape(len(array), -1)
    return bool((flat == flat[:, :1]).all())


def _is_even_along(scaling: Scaling, axis: int) -> bool:
    arrays = scaling.factor, scaling.shift
    return all(bool((array == array.take([0], axis)).all()) for array in arrays)


def _as(layer: Affine | Convolution | ConvolutionTranspose, array: numpy.ndarray) -> object:
    return asarray(numpy.ascontiguousarray(array, asnumpy(layer.W).dtype))
