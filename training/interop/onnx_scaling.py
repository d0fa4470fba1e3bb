"""Products and sums with constants, which the import of ONNX makes part of the layers around them."""

from __future__ import annotations

import math

import numpy

from backend import asarray, asnumpy
from layers import Affine, Convolution, ConvolutionTranspose, Layer, PositionalEmbedding, PositionwiseAffine, Reshape
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
        if not isinstance(layer, (Affine, PositionwiseAffine, Convolution, ConvolutionTranspose)):
            return False
        factor, shift = (_by_feature(array, layer) for array in (self.factor, self.shift))
        if factor is None or shift is None:
            return False
        along = (-1, *[1] * (3 if isinstance(layer, Convolution) else layer.W.ndim - 2))
        layer.W = _as(layer, asnumpy(layer.W) * factor.reshape(along))
        if layer.b is not None or shift.any():
            bias = 0 if layer.b is None else asnumpy(layer.b).astype("float64")
            layer.b = _as(layer, bias * factor + shift)
        return True

    def into_layer_behind(self, layer: Layer) -> bool:
        """Change the weights of the layer whose input is scaled, by factors alone; return whether they could be."""
        if self.shift.any() or not isinstance(layer, (Affine, PositionwiseAffine, Convolution)):
            return False
        factor = self.factor.reshape(-1) if isinstance(layer, Affine) else _by_feature(self.factor, layer)
        if factor is None:
            return False
        weight = asnumpy(layer.W)
        if isinstance(layer, Convolution):
            grouped = weight.reshape(layer.groups, -1, *weight.shape[1:]) * factor.reshape(layer.groups, 1, -1, 1, 1)
            layer.W = _as(layer, grouped.reshape(weight.shape))
        else:
            layer.W = _as(layer, weight * factor[:, None])
        return True

    def as_layers(self, dtype: str) -> list[Layer]:
        """Return it as a depthwise 1×1 convolution, with a channel for each number that differs; [] for y = x.

        A sum of sequences with a constant whose rows differ is a ``PositionalEmbedding``.
        """
        is_sum = bool((self.factor == 1).all())
        if is_sum and not self.shift.any():
            return []
        if is_sum and len(self.shape) == 2 and not _is_even_along(self, 0):
            return [PositionalEmbedding(asarray(self.shift.astype(dtype)))]
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


def _by_feature(array: numpy.ndarray, layer: Layer) -> numpy.ndarray | None:
    """Return a number for each channel of images, or for each feature of rows; None if places or pixels differ."""
    flat = array.reshape(-1, array.shape[-1]).T if isinstance(layer, PositionwiseAffine) else array
    flat = flat.reshape(len(flat), -1)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None


def _is_even_along(scaling: Scaling, axis: int) -> bool:
    arrays = scaling.factor, scaling.shift
    return all(bool((array == array.take([0], axis)).all()) for array in arrays)


def _as(layer: Layer, array: numpy.ndarray) -> object:
    return asarray(numpy.ascontiguousarray(array, layer.params["W"].dtype))
