"""Self-attention with several heads, and the fully connected layer over each position of a sequence."""

from __future__ import annotations

from typing import Any

from backend import array_module, xp
from backend.checks import LARGEST_SIZE, array_shape, flag, whole
from backend.types import Array
from kernels.affine import affine
from kernels.attention import attention, attention_backward
from kernels.gemm import matmul
from kernels.sums import column_sums
from layers import checks
from layers.base import Layer, Shape
from layers.initializers import Init, weights
from layers.parameters import as_parameter, parameter


class PositionwiseAffine(Layer):
    """Fully connected layer over each position, (N, T, inputs) → (N, T, outputs): y = x·W + b along the last axis.

    ``Affine`` reads a whole sequence as one row of numbers; this layer has the same weights for every position.

    Args:
        W: (inputs, outputs), floating.
        b: (outputs,), dtype of ``W``; or None for no bias.

    Raises:
        TypeError: W and b are not floating arrays of one dtype and library.
        ValueError: their shapes do not fit together.

    Examples:
        >>> from backend import xp
        >>> from layers import PositionwiseAffine
        >>> PositionwiseAffine.of(8, 3).forward(xp.ones((2, 5, 8), "float32")).shape
        (2, 5, 3)
    """

    W, dW = parameter()
    b, db = parameter()

    def __init__(self, W: Array, b: Array | None = None) -> None:
        checks.filters("PositionwiseAffine", "W (inputs, outputs) and b (outputs,)", 2, 1, W, b)
        self.W = W
        if b is not None:
            self.b = b

    @classmethod
    def of(
        cls, features: int, outputs: int, init: Init = "he", dtype: Any = "float32", bias: bool = True
    ) -> PositionwiseAffine:
        """Return a layer for so many features of a position, with fresh weights and zero bias, or without one.

        Raises:
            TypeError: a size is not a whole number, ``bias`` not a bool, or ``dtype`` not floating.
            ValueError: a size is not positive, or ``init`` is unknown.
        """
        features, outputs = whole("features", features, 1, LARGEST_SIZE), whole("outputs", outputs, 1, LARGEST_SIZE)
        shape, bias = array_shape("(features, outputs)", (features, outputs)), flag("bias", bias)
        return cls(weights(shape, features, init, dtype), xp.zeros(outputs, dtype) if bias else None)

    def forward(self, x: Array) -> Array:
        x = as_parameter("PositionwiseAffine", x, self.W)
        checks.input_shape(self, x)
        rows = x.reshape(-1, len(self.W)) if x.size else x.reshape(0, len(self.W))
        y, _ = affine(rows, self.W, self.b)
        return self.save(y.reshape(*x.shape[:2], self.W.shape[1]), rows, x.shape)

    def backward(self, dout: Array) -> Array | None:
        rows, shape = self.saved(dout)
        dy = dout.reshape(len(rows), self.W.shape[1])
        if not self.frozen:
            matmul(rows.T, dy, out=self.gradient("W"))
            if self.b is not None:
                column_sums(dy, out=self.gradient("b"))
        return matmul(dy, self.W.T).reshape(shape) if self.input_gradient else None

    def output_shape(self, shape: Shape) -> Shape:
        steps, _ = checks.sequence_shape(shape, len(self.W))
        return steps, self.W.shape[1]

    def describe(self) -> str:
        return f"{self.W.shape[0]} → {self.W.shape[1]}" + (", no bias" if self.b is None else "")


class MultiHeadAttention(Layer):
    """Self-attention with several heads, (N, T, size) → (N, T, size).

    Vaswani et al., "Attention is all you need" (2017), section 3.2. Queries, keys and values are
    x·W_in + b_in, in this order; each head has size / heads neighboring numbers of each. The heads' results, side by
    side, go through W_out and b_out. It is PyTorch's ``nn.MultiheadAttention`` with ``batch_first=True``, whose weights
    are the transposes. No matrix of scores is kept: see ``kernels.attention``.

    Args:
        W_in: (size, 3·size), floating.
        b_in: (3·size,).
        W_out: (size, size).
        b_out: (size,).
        heads: how many; divides size.
        causal: let a position see no later one.

    Raises:
        TypeError: the arrays are not floating ones of one dtype and library, or heads is not a whole number.
        ValueError: their shapes do not fit together, or heads does not divide size.

    Examples:
        >>> from backend import xp
        >>> from layers import MultiHeadAttention
        >>> layer = MultiHeadAttention.of(8, heads=2, causal=True)
        >>> layer.forward(xp.ones((3, 5, 8), "float32")).shape
        (3, 5, 8)
    """

    W_in, dW_in = parameter()
    b_in, db_in = parameter()
    W_out, dW_out = parameter()
    b_out, db_out = parameter()

    def __init__(
        self, W_in: Array, b_in: Array, W_out: Array, b_out: Array, heads: int = 1, causal: bool = False
    ) -> None:
        name = "MultiHeadAttention"
        checks.floating(name, W_in=W_in, b_in=b_in, W_out=W_out, b_out=b_out)
        size = b_out.shape[0] if b_out.ndim == 1 else 0
        given = [array.shape for array in (W_in, b_in, W_out, b_out)]
        if not size or given != [(size, 3 * size), (3 * size,), (size, size), (size,)]:
            expected = "W_in (size, 3·size), b_in (3·size,), W_out (size, size) and b_out (size,)"
            raise ValueError(f"{name} needs {expected}, got {', '.join(map(str, given))}")
        self.heads, self.causal = whole("heads", heads, 1, LARGEST_SIZE), flag("causal", causal)
        if size % self.heads:
            raise ValueError(f"{name}: heads must divide size {size}, got {heads}")
        self.W_in, self.b_in, self.W_out, self.b_out = W_in, b_in, W_out, b_out

    @classmethod
    def of(cls, features: int, heads: int, causal: bool = False, dtype: Any = "float32") -> MultiHeadAttention:
        """Return a layer for so many features of a position, with fresh weights ("xavier") and zero biases.

        Raises:
            TypeError: a size is not a whole number, ``causal`` not a bool, or ``dtype`` not floating.
            ValueError: a size is not positive, or ``heads`` does not divide ``features``.
        """
        size = whole("features", features, 1, LARGEST_SIZE)
        heads, causal = whole("heads", heads, 1, LARGEST_SIZE), flag("causal", causal)
        if size % heads:
            raise ValueError(f"MultiHeadAttention: heads must divide features {size}, got {heads}")
        into, out = (weights(array_shape("W", (size, k * size)), size, "xavier", dtype) for k in (3, 1))
        return cls(into, xp.zeros(3 * size, dtype), out, xp.zeros(size, dtype), heads, causal)

    def forward(self, x: Array) -> Array:
        x = as_parameter("MultiHeadAttention", x, self.W_in)
        checks.input_shape(self, x)
        n, length, size = x.shape
        rows = x.reshape(n * length, size)
        packed, _ = affine(rows, self.W_in, self.b_in)
        q, k, v = packed.reshape(n, length, 3, self.heads, size // self.heads).transpose(2, 0, 3, 1, 4)
        y, log_sums = attention(q, k, v, self.causal)
        out, _ = affine(_merged(y), self.W_out, self.b_out)
        return self.save(out.reshape(x.shape), rows, q, k, v, y, log_sums)

    def backward(self, dout: Array) -> Array | None:
        rows, q, k, v, y, log_sums = self.saved(dout)
        n, heads, length, depth = q.shape
        dy = dout.reshape(rows.shape)
        of_heads = matmul(dy, self.W_out.T).reshape(n, length, heads, depth).transpose(0, 2, 1, 3)
        gradients = attention_backward(of_heads, q, k, v, y, log_sums, self.causal)
        packed = array_module(dy).stack([each.transpose(0, 2, 1, 3) for each in gradients], axis=2)
        packed = packed.reshape(len(rows), 3 * rows.shape[1])
        if not self.frozen:
            matmul(rows.T, packed, out=self.gradient("W_in"))
            column_sums(packed, out=self.gradient("b_in"))
            matmul(_merged(y).T, dy, out=self.gradient("W_out"))
            column_sums(dy, out=self.gradient("b_out"))
        return matmul(packed, self.W_in.T).reshape(dout.shape) if self.input_gradient else None

    def output_shape(self, shape: Shape) -> Shape:
        return checks.sequence_shape(shape, len(self.W_in))

    def describe(self) -> str:
        heads = f"{len(self.W_in)}, {self.heads} head{'s' if self.heads > 1 else ''}"
        return heads + (", causal" if self.causal else "")


def _merged(y: Array) -> Array:
    """Return (N, heads, T, depth) as rows (N · T, size), the heads side by side."""
    n, heads, length, depth = y.shape
    return y.transpose(0, 2, 1, 3).reshape(n * length, heads * depth)
