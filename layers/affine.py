"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

from backend import xp
from backend.checks import LARGEST_SIZE, array_shape, sizes, whole
from kernels.activations import relu_in_place
from kernels.core.layout import as_nchw, copy_channels_last, to_nhwc
from kernels.gemm import column_sums, matmul
from layers import checks
from layers.base import Layer, Shape
from layers.initializers import Init, weights
from layers.parameters import parameter


class Affine(Layer):
    """y = x·W + b.

    Args:
        W: (inputs, outputs).
        b: (outputs,).

    ``forward`` takes (N, inputs), or any (N, …) with that many numbers a sample, read in their logical order
    (C, H, W); ``backward`` returns the gradient in the input's shape.

    Raises:
        TypeError: W and b are not floating arrays of one dtype and library.
        ValueError: their shapes do not belong together.
    """

    W, dW = parameter()
    b, db = parameter()

    def __init__(self, W: Any, b: Any) -> None:
        checks.floating("Affine", W=W, b=b)
        if W.ndim != 2 or b.shape != W.shape[1:] or not W.size:
            raise ValueError(f"Affine needs W (inputs, outputs) and b (outputs,), got {W.shape} and {b.shape}")
        self.W = W
        self.b = b

    @classmethod
    def of(cls, inputs: int, outputs: int, init: Init = "he", dtype: Any = "float32") -> Affine:
        """A layer of that size with fresh weights and zero bias.

        Raises:
            TypeError: a size is no whole number, or ``dtype`` not floating.
            ValueError: a size is not positive, or ``init`` is none.
        """
        inputs, outputs = whole("inputs", inputs, 1, LARGEST_SIZE), whole("outputs", outputs, 1, LARGEST_SIZE)
        shape = array_shape("(inputs, outputs)", (inputs, outputs))
        return cls(weights(shape, inputs, init, dtype), xp.zeros(outputs, dtype))

    def forward(self, x: Any) -> Any:
        return self._forward(x, relu=False)[0]

    def forward_relu(self, x: Any) -> tuple[Any, Any]:
        return self._forward(x, relu=True)

    def _forward(self, x: Any, relu: bool) -> tuple[Any, Any]:
        x = checks.as_parameter("Affine", x, self.W)
        if x.ndim < 2 or math.prod(x.shape[1:]) != len(self.W):
            raise ValueError(f"{self!r} takes (N, …) with {len(self.W)} numbers a sample, got {x.shape}")
        # Images: rather than each sample, the rows of W are brought into the other's order, as long runs of numbers.
        turned = x.ndim == 4 and turns_weight(len(x), self.W.shape[1])
        rows = (to_nhwc(x) if turned else x).reshape(len(x), len(self.W))
        W = _pixels_first(self.W, x.shape).reshape(self.W.shape) if turned else self.W
        y = matmul(rows, W, bias=self.b)
        positive = relu_in_place(y) if relu else None
        return self.save(y, rows, x.shape, W if turned else None), positive

    def backward(self, dout: Any) -> Any:
        rows, shape, W = self.saved(dout)
        turned = W is not None
        dW = self.gradient("W")
        if turned:
            _pixels_first(dW, shape)[...] = matmul(rows.T, dout).reshape(-1, shape[1], W.shape[1])
        else:
            matmul(rows.T, dout, out=dW)
        column_sums(dout, out=self.gradient("b"))
        if not self.input_gradient:
            return None
        dx = matmul(dout, (W if turned else self.W).T)
        if turned:
            n, c, h, w = shape
            return as_nchw(dx.reshape(n, h, w, c))
        dx = dx.reshape(shape)
        return copy_channels_last(dx) if dx.ndim == 4 else dx

    def output_shape(self, shape: Shape) -> Shape:
        shape = sizes("shape", shape)
        if math.prod(shape) != len(self.W):
            raise ValueError(f"takes {len(self.W)} numbers a sample, got {shape}, {math.prod(shape)} numbers")
        return (self.W.shape[1],)

    def describe(self) -> str:
        return f"{self.W.shape[0]} → {self.W.shape[1]}"


def turns_weight(images: int, outputs: int) -> bool:
    """Whether W is turned for so many images, and not they: it costs less, unless W has many times more columns."""
    return outputs <= 4 * images


def _pixels_first(W: Any, shape: tuple[int, ...]) -> Any:
    """The rows of ``W`` (C·H·W, outputs) in the order of channels-last memory, for images of ``shape``: a view
    (H·W, C, outputs).
    """
    return W.reshape(shape[1], -1, W.shape[1]).transpose(1, 0, 2)
