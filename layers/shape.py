"""Layers that only change the shape."""

from __future__ import annotations

import math

from backend import array_module
from backend.checks import sizes
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
