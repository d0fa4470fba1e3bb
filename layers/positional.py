"""Positions of a sequence, added to its numbers: fixed waves, or learned."""

from __future__ import annotations

import functools
from typing import Any

import numpy

from backend import asarray, current_device
from backend.checks import LARGEST_SIZE, array_shape, whole
from backend.types import Array
from kernels.sums import axis_sums
from layers import checks
from layers.base import Layer, Shape
from layers.initializers import weights
from layers.parameters import as_parameter, parameter


class PositionalEncoding(Layer):
    """Sinusoidal positions: y[t, 2i] = x[t, 2i] + sin(t / 10000^(2i / size)), and cos for 2i + 1.

    Vaswani et al., "Attention is all you need" (2017), section 3.5. It takes sequences (N, T, size) of any length up to
    ``length``, and learns nothing.

    Args:
        length: of the longest sequence.
        size: numbers of a position.

    Raises:
        TypeError: an argument is not a whole number.
        ValueError: it is not positive.

    Examples:
        >>> from backend import xp
        >>> from layers import PositionalEncoding
        >>> PositionalEncoding(length=8, size=2).forward(xp.zeros((1, 3, 2))).round(2)
        array([[[ 0.  ,  1.  ],
                [ 0.84,  0.54],
                [ 0.91, -0.42]]])
    """

    def __init__(self, length: int, size: int) -> None:
        self.length, self.size = whole("length", length, 1, LARGEST_SIZE), whole("size", size, 1, LARGEST_SIZE)

    def forward(self, x: Array) -> Array:
        checks.floating("PositionalEncoding", x=x)
        checks.input_shape(self, x)
        return self.save(x + self.positions(x.shape[1], x.dtype))

    def positions(self, length: int, dtype: Any) -> Array:
        """Return what is added to a sequence of a length, (length, size) on the active device; not to be changed."""
        return _waves(length, self.size, numpy.dtype(dtype).name, str(current_device()))

    def backward(self, dout: Array) -> Array:
        self.saved(dout)
        return dout.copy()

    def output_shape(self, shape: Shape) -> Shape:
        return checks.sequence_shape(shape, self.size, self.length)

    def describe(self) -> str:
        return f"{self.length} x {self.size}"


class PositionalEmbedding(Layer):
    """Learned positions: y = x + W[:T] for sequences (N, T, size) of any length T up to that of ``W``.

    Args:
        W: (length, size), floating.

    Raises:
        TypeError: W is not a floating array.
        ValueError: it is not of two axes.

    Examples:
        >>> from backend import xp
        >>> from layers import PositionalEmbedding
        >>> PositionalEmbedding(xp.asarray([[1.0], [2.0]])).forward(xp.zeros((1, 2, 1)))
        array([[[1.],
                [2.]]])
    """

    W, dW = parameter()

    def __init__(self, W: Array) -> None:
        checks.filters("PositionalEmbedding", "W (length, size)", 2, 0, W, None)
        self.W = W

    @classmethod
    def of(cls, length: int, features: int, dtype: Any = "float32") -> PositionalEmbedding:
        """Return a layer with fresh weights of standard deviation 0.02, as in ViT and GPT-2.

        Raises:
            TypeError: a size is not a whole number, or ``dtype`` not floating.
            ValueError: a size is not positive.
        """
        length, features = whole("length", length, 1, LARGEST_SIZE), whole("features", features, 1, LARGEST_SIZE)
        return cls(weights(array_shape("(length, features)", (length, features)), 1, 0.02, dtype))

    def forward(self, x: Array) -> Array:
        x = as_parameter("PositionalEmbedding", x, self.W)
        checks.input_shape(self, x)
        return self.save(x + self.W[: x.shape[1]])

    def backward(self, dout: Array) -> Array:
        self.saved(dout)
        if not self.frozen:
            gradient, length = self.gradient("W"), dout.shape[1]
            gradient[:length] = axis_sums(dout, 0)
            gradient[length:] = 0
        return dout.copy()

    def output_shape(self, shape: Shape) -> Shape:
        length, features = self.W.shape
        return checks.sequence_shape(shape, features, length)

    def describe(self) -> str:
        return " x ".join(map(str, self.W.shape))


@functools.lru_cache(maxsize=8)
def _waves(length: int, size: int, dtype: str, device: str) -> Array:
    """Return the sinusoids (length, size) on the active device, whose name is part of the key alone."""
    even = numpy.arange(size) // 2 * 2
    angles = numpy.arange(length)[:, None] / 10000.0 ** (even / size)
    return asarray(numpy.where(numpy.arange(size) % 2, numpy.cos(angles), numpy.sin(angles)).astype(dtype))
