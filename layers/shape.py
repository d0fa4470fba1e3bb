"""Layers that only change the shape, or the order of the axes."""

from __future__ import annotations

import math

from backend import array_module
from backend.checks import refusal, sizes
from backend.types import Array
from kernels.core.layout import copy_channels_last
from layers import checks
from layers.base import Layer, Shape


class Flatten(Layer):
    """Flattening: (N, …) → (N, numbers per sample), in the logical order (C, H, W).

    Examples:
        >>> from backend import xp
        >>> from layers import Flatten
        >>> Flatten().forward(xp.zeros((2, 3, 4, 4))).shape
        (2, 48)
    """

    def forward(self, x: Array) -> Array:
        checks.floating("Flatten", x=x)
        if not x.ndim:
            raise ValueError("Flatten needs x (N, …), got an array of no dimensions")
        # A copy always: an output that shares its input's memory could be changed through it.
        y = array_module(x).array(x.reshape(len(x), math.prod(x.shape[1:])), order="C")
        return self.save(y, x.shape)

    def backward(self, dout: Array) -> Array:
        (shape,) = self.saved(dout)
        dx = dout.reshape(shape)
        return copy_channels_last(dx) if dx.ndim == 4 else dx.copy()

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(sizes("shape", shape)),)


class Reshape(Layer):
    """Another shape of the same numbers: (N, …) → (N, *shape), in the logical order (C, H, W).

    Args:
        shape: of a sample, without the batch axis.

    Raises:
        TypeError: a size is not a whole number.
        ValueError: a size is not positive.

    Examples:
        >>> from backend import xp
        >>> from layers import Reshape
        >>> Reshape((3, 16, 1)).forward(xp.zeros((2, 3, 4, 4))).shape
        (2, 3, 16, 1)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = sizes("shape", shape, 1)

    def forward(self, x: Array) -> Array:
        checks.floating("Reshape", x=x)
        checks.input_shape(self, x)
        return self.save(_copied(x.reshape(len(x), *self.shape)), x.shape)

    def backward(self, dout: Array) -> Array:
        (shape,) = self.saved(dout)
        return _copied(dout.reshape(shape))

    def output_shape(self, shape: Shape) -> Shape:
        given = sizes("shape", shape)
        if math.prod(given) != math.prod(self.shape):
            raise ValueError(f"takes {math.prod(self.shape)} numbers per sample, got {given}")
        return self.shape

    def describe(self) -> str:
        return " x ".join(map(str, self.shape))


class Permute(Layer):
    """Another order of a sample's axes, such as pixels for channels: (N, C, P, 1) → (N, P, C, 1) by (2, 1, 3).

    Args:
        axes: for each axis of the output, which axis of the input it is, counted from 1; axis 0, the batch, stays.

    Raises:
        TypeError: an axis is not a whole number.
        ValueError: the axes are not 1, 2, … in some order.

    Examples:
        >>> from backend import xp
        >>> from layers import Permute
        >>> Permute((2, 1, 3)).forward(xp.zeros((2, 3, 16, 1))).shape
        (2, 16, 3, 1)
    """

    def __init__(self, axes: tuple[int, ...]) -> None:
        given = sizes("axes", axes, 1)
        if sorted(given) != list(range(1, len(given) + 1)):
            raise refusal(ValueError, "Permute: axes", "1, 2, … in some order", axes)
        self.axes = given

    def forward(self, x: Array) -> Array:
        checks.floating("Permute", x=x)
        checks.input_shape(self, x)
        return self.save(_copied(x.transpose(0, *self.axes)))

    def backward(self, dout: Array) -> Array:
        self.saved(dout)
        back = sorted(range(1, len(self.axes) + 1), key=lambda axis: self.axes[axis - 1])
        return _copied(dout.transpose(0, *back))

    def output_shape(self, shape: Shape) -> Shape:
        given = sizes("shape", shape)
        if len(given) != len(self.axes):
            raise ValueError(f"takes samples of {len(self.axes)} axes, got {given}")
        return tuple(given[axis - 1] for axis in self.axes)

    def describe(self) -> str:
        return ", ".join(map(str, self.axes))


def _copied(x: Array) -> Array:
    """Return a copy: an output that shares its input's memory could be changed through it."""
    return copy_channels_last(x) if x.ndim == 4 else array_module(x).array(x, order="C")
