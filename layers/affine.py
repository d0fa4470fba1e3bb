"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

from backend import xp
from backend.checks import LARGEST_SIZE, array_shape, flag, sizes, whole
from backend.types import Array
from kernels.affine import affine, bias_gradient
from kernels.core.layout import as_nchw, copy_channels_last, to_nhwc
from kernels.gemm import matmul
from kernels.masking import masked
from kernels.sums import column_sums
from layers import checks
from layers.base import Layer, Shape
from layers.initializers import Init, weights
from layers.parameters import as_parameter, parameter


class Affine(Layer):
    """Fully connected layer: y = x·W + b.

    ``forward`` takes (N, inputs), or any (N, …) with that many numbers per sample, read in their logical order
    (C, H, W), and returns (N, outputs); ``backward`` returns the gradient in the input's shape.

    Args:
        W: (inputs, outputs), floating.
        b: (outputs,), dtype of ``W``; or None for no bias, before a batch normalization, which subtracts any constant.

    Raises:
        TypeError: W and b are not floating arrays of one dtype and library.
        ValueError: their shapes do not fit together.

    Examples:
        >>> from backend import xp
        >>> from layers import Affine
        >>> layer = Affine(xp.asarray([[1.0, 2.0], [3.0, 4.0]]), xp.asarray([0.5, 0.0]))
        >>> layer.forward(xp.asarray([[1.0, 1.0]]))
        array([[4.5, 6. ]])
        >>> layer.backward(xp.asarray([[1.0, 0.0]])), layer.db
        (array([[1., 3.]]), array([1., 0.]))
    """

    W, dW = parameter()
    b, db = parameter()

    def __init__(self, W: Array, b: Array | None = None) -> None:
        checks.filters("Affine", "W (inputs, outputs) and b (outputs,)", 2, 1, W, b)
        self.W = W
        if b is not None:
            self.b = b

    @classmethod
    def of(cls, inputs: int, outputs: int, init: Init = "he", dtype: Any = "float32", bias: bool = True) -> Affine:
        """Return a layer of that size with fresh weights and zero bias, or without one.

        Raises:
            TypeError: a size is not a whole number, ``bias`` not a bool, or ``dtype`` not floating.
            ValueError: a size is not positive, or ``init`` is unknown.

        Examples:
            >>> from layers import Affine
            >>> Affine.of(784, 10)
            Affine(784 → 10)
        """
        inputs, outputs = whole("inputs", inputs, 1, LARGEST_SIZE), whole("outputs", outputs, 1, LARGEST_SIZE)
        shape, bias = array_shape("(inputs, outputs)", (inputs, outputs)), flag("bias", bias)
        return cls(weights(shape, inputs, init, dtype), xp.zeros(outputs, dtype) if bias else None)

    def forward(self, x: Array) -> Array:
        return self._forward(x, relu=False)[0]

    def forward_relu(self, x: Array) -> tuple[Array, Array]:
        return self._forward(x, relu=True)

    def _forward(self, x: Array, relu: bool) -> tuple[Array, Any]:
        W = self.W
        x = as_parameter("Affine", x, W)
        if x.ndim < 2 or math.prod(x.shape[1:]) != len(W):
            raise ValueError(f"{self!r} takes (N, …) with {len(W)} numbers per sample, got {x.shape}")
        permuted = None
        if x.ndim == 4 and permutes_weight(len(x), W.shape[1]):
            # The samples stay as they lie, channels last, and the rows of W are brought into that order, in long runs.
            x, shape = to_nhwc(x), x.shape
            W = permuted = _pixels_first(W, shape).reshape(W.shape)
        else:
            shape = x.shape
        rows = x.reshape(len(x), len(W))
        y, positive = affine(rows, W, self.b, relu)
        return self.save(y, rows, shape, permuted), positive

    def backward_relu(self, dout: Array, positive: Array) -> Array | None:
        if self.frozen or self.b is None:
            return Affine.backward(self, masked(dout, positive))
        self.saved(dout)
        dW = self.gradient("W")  # the order of the gradients is that of the parameters
        return Affine.backward(self, bias_gradient(dout, positive, self.gradient("b")), dW)

    def backward(self, dout: Array, dW: Array | None = None) -> Array | None:
        rows, shape, permuted = self.saved(dout)
        if not self.frozen:
            if dW is None:  # else the bias's gradient is done
                dW = self.gradient("W")
                if self.b is not None:
                    column_sums(dout, out=self.gradient("b"))
            if permuted is None:
                matmul(rows.T, dout, out=dW)
            else:
                _pixels_first(dW, shape)[...] = matmul(rows.T, dout).reshape(-1, shape[1], dW.shape[1])
        if not self.input_gradient:
            return None
        dx = matmul(dout, (self.W if permuted is None else permuted).T)
        if permuted is not None:
            n, c, h, w = shape
            return as_nchw(dx.reshape(n, h, w, c))
        dx = dx.reshape(shape)
        return copy_channels_last(dx) if dx.ndim == 4 else dx

    def output_shape(self, shape: Shape) -> Shape:
        shape = sizes("shape", shape)
        if math.prod(shape) != len(self.W):
            raise ValueError(f"takes {len(self.W)} numbers per sample, got {shape}, {math.prod(shape)} numbers")
        return (self.W.shape[1],)

    def describe(self) -> str:
        return f"{self.W.shape[0]} → {self.W.shape[1]}" + (", no bias" if self.b is None else "")


def permutes_weight(images: int, outputs: int) -> bool:
    """Return whether permuting the rows of W costs less than copying the images: not where W has far more columns."""
    return outputs <= 4 * images


def _pixels_first(W: Array, shape: tuple[int, ...]) -> Array:
    """Return the rows of ``W`` (C·H·W, outputs) in channels-last order: a view (H·W, C, outputs).

    Args:
        shape: (N, C, H, W) of the images.
    """
    return W.reshape(shape[1], -1, W.shape[1]).transpose(1, 0, 2)
