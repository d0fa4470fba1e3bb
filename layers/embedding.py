"""The embedding of indices: a learned row of numbers for each."""

from __future__ import annotations

from typing import Any

from backend import require_active, require_arrays, require_same_device
from backend.checks import LARGEST_SIZE, array_shape, sizes, whole
from backend.types import Array
from kernels import embedding as kernel
from layers import checks
from layers.base import Layer, Shape
from layers.initializers import Init, weights
from layers.parameters import parameter


class Embedding(Layer):
    """Embedding: a learned vector for each index, such as a character, a word or a category.

    ``forward`` takes indices (N, …), of any integer dtype, from 0 to count - 1, and returns (N, …, size) in the dtype
    of ``W``. ``backward`` sums the gradients of each row in the order of its places, with the same bits on every
    device, and returns None: indices have no gradient.

    Args:
        W: (count, size), floating.

    Raises:
        TypeError: W is not a floating array; or indices are not integers, or lie on another device.
        ValueError: W is not a matrix; or, on the CPU, an index is out of range. On a GPU its vector is NaN then, since
            raising would wait for the device, and its row gets no gradient.

    Examples:
        >>> from backend import xp
        >>> from layers import Embedding
        >>> layer = Embedding(xp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        >>> layer.forward(xp.asarray([[2, 0, 2]]))
        array([[[5., 6.],
                [1., 2.],
                [5., 6.]]])
        >>> layer.backward(xp.ones((1, 3, 2)))
        >>> layer.dW
        array([[1., 1.],
               [0., 0.],
               [2., 2.]])
    """

    W, dW = parameter()

    def __init__(self, W: Array) -> None:
        checks.filters("Embedding", "W (count, size)", 2, 1, W, None)
        self.W = W

    @classmethod
    def of(cls, count: int, size: int, init: Init = 1.0, dtype: Any = "float32") -> Embedding:
        """Return a layer for ``count`` indices with normally distributed vectors of that size.

        Args:
            init: the standard deviation, as of ``layers.initializers.weights``; PyTorch's is 1, too.

        Raises:
            TypeError: a size is not a whole number, or ``dtype`` not floating.
            ValueError: a size is not positive, or ``init`` is unknown.

        Examples:
            >>> from layers import Embedding
            >>> Embedding.of(65, 16)
            Embedding(65 → 16)
        """
        count, size = whole("count", count, 1, LARGEST_SIZE), whole("size", size, 1, LARGEST_SIZE)
        return cls(weights(array_shape("(count, size)", (count, size)), 1, init, dtype))

    def forward(self, x: Array) -> Array:
        require_arrays(x=x)
        require_same_device(x, self.W)
        require_active(x, "x")
        if x.dtype.kind not in "iu":
            raise TypeError(f"Embedding needs x as indices of an integer dtype, got {x.dtype}")
        if not x.ndim:
            raise ValueError("Embedding needs x (N, …), got an array of no dimensions")
        return self.save(kernel.embedding(self.W, x), x)

    def backward(self, dout: Array) -> None:
        (indices,) = self.saved(dout)
        if not self.frozen:
            kernel.embedding_backward(dout, indices, self.gradient("W"))

    def output_shape(self, shape: Shape) -> Shape:
        return (*sizes("shape", shape), self.W.shape[1])

    def describe(self) -> str:
        return f"{self.W.shape[0]} → {self.W.shape[1]}"
