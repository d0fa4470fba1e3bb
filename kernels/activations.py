"""Elementwise activations and their gradients. 4-D arrays are computed in their channels-last memory."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy

from backend import array_module, profiling, workspace
from backend.checks import real, refusal
from backend.types import Array
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.layout import as_nchw, elementwise, to_nhwc
from kernels.core.native import Function, share
from kernels.core.tiling import in_pieces
from kernels.masking import apply_mask

_RELU = Function("activations.c", "relu")


@elementwise
def relu(x: Array) -> tuple[Array, Array]:
    """Compute max(x, 0), and where x > 0 (bool). NaN passes."""
    return _relu(x)


def _relu(x: Array) -> tuple[Array, Array]:
    y, positive = workspace.empty(x.shape, x.dtype), workspace.empty(x.shape, bool)
    implementation(x, _relu_numpy, _relu_cuda, _relu_native)(x, y, positive)
    return y, positive


def _relu_numpy(x: Array, y: Array, positive: Array) -> None:
    in_pieces(lambda cut: _relu_of_piece(x[cut], y[cut], positive[cut]), x)


def _relu_of_piece(x: Array, y: Array, positive: Array) -> None:
    numpy.maximum(x, 0, out=y)
    numpy.greater(y, 0, out=positive)


def _relu_native(x: Array, y: Array, positive: Array) -> None:
    x = numpy.ascontiguousarray(x)
    share(x.size, 2 * x.itemsize + 1, lambda first, last: _RELU(x.dtype, x, y, positive, x.size, first, last))


def _relu_cuda(x: Array, y: Array, positive: Array) -> None:
    _relu_kernel()(x, y, positive)


@functools.cache
def _relu_kernel() -> Any:
    import cupy

    code = "positive = x > T(0); y = positive || x != x ? x : T(0)"
    return cupy.ElementwiseKernel("T x", "T y, bool positive", code, "xpnet_relu")


def rectify(y: Array, positive: Array) -> None:
    """Compute ``relu`` in place, for a piece of an operation's output while it is in cache; write ``positive``."""
    implementation(y, _relu_of_piece, _relu_cuda)(y, y, positive)


@profiling.operation
def relu_in_place(y: Array) -> Array:
    """Compute ``relu`` in place, for an operation's whole output, if 4-D channels last; return where it is positive."""
    storage = to_nhwc(y) if y.ndim == 4 else y
    positive = workspace.empty(storage.shape, bool)
    implementation(y, _relu_numpy, _relu_cuda)(storage, storage, positive)
    return as_nchw(positive) if y.ndim == 4 else positive


@elementwise
def multiply(a: Array, b: Array) -> Array:
    """Compute a · b."""
    return array_module(a, b).multiply(a, b)


@elementwise
def scale(x: Array, factor: float) -> Array:
    """Compute factor · x in the dtype of ``x``, for 0 ≤ factor ≤ 1."""
    return x * real("factor", factor, least=0, most=1)


@elementwise
def leaky_relu(x: Array, slope: float) -> tuple[Array, Array]:
    """Compute x where x > 0, else slope·x, for 0 ≤ slope ≤ 1 (Maas, Hannun and Ng, 2013); and where x > 0 (bool).

    With slope 0 it is ``relu``, for infinities too, where 0·x would be NaN.
    """
    slope = real("slope", slope, least=0, most=1)
    if slope == 0:
        return _relu(x)
    library = array_module(x)
    y = library.multiply(x, slope, out=workspace.empty(x.shape, x.dtype))
    return library.maximum(x, y, out=y), library.greater(x, 0)


@elementwise
def leaky_relu_backward(dy: Array, positive: Array, slope: float) -> Array:
    """Return dy where ``positive``, else slope·dy."""
    slope = real("slope", slope, least=0, most=1)
    if slope == 0:
        dx = workspace.empty(dy.shape, dy.dtype)
        apply_mask(dy, positive, dx)
        return dx
    factor = positive.astype(dy.dtype)
    factor *= 1 - slope
    factor += slope
    factor *= dy
    return factor


@elementwise
def sigmoid(x: Array) -> Array:
    """Compute 1 / (1 + exp(-x)), as exp(min(x, 0)) / (1 + exp(-|x|)): accurate at both ends, and nothing overflows."""
    library = array_module(x)
    _require_floating(x)
    wide = x.astype(acc_dtype(x.dtype), copy=False)
    y = library.exp(library.minimum(wide, 0))
    y /= 1 + library.exp(-library.abs(wide))
    return y.astype(x.dtype, copy=False)


@elementwise
def sigmoid_backward(dy: Array, y: Array) -> Array:
    """Return dy·y·(1 - y)."""
    dx = 1 - y
    dx *= y
    dx *= dy
    return dx


@elementwise
def tanh(x: Array) -> Array:
    """Compute the hyperbolic tangent."""
    return array_module(x).tanh(x)


@elementwise
def tanh_backward(dy: Array, y: Array) -> Array:
    """Return dy·(1 - y²)."""
    dx = y * y
    array_module(y).subtract(1, dx, out=dx)
    dx *= dy
    return dx


def _require_floating(x: Array) -> None:
    """Raise a TypeError for integers, to which a result would be rounded."""
    if x.dtype.kind != "f":
        raise refusal(TypeError, "x", "a floating-point array", x)


_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


@elementwise
def gelu(x: Array) -> Array:
    """Compute x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))).

    Hendrycks and Gimpel, "Gaussian error linear units" (2016), section 2.
    """
    _require_floating(x)
    wide = x.astype(acc_dtype(x.dtype), copy=False)
    y = _gelu_tanh(wide)
    y += 1
    y *= 0.5  # before x: twice the largest number is none
    y *= wide
    return y.astype(x.dtype, copy=False)


@elementwise
def gelu_backward(dy: Array, x: Array) -> Array:
    """Return dy·g'(x) with g = ``gelu``; with t its tanh: g' = (1 + t)/2 + x/2·(1 - t²)·√(2/π)·(1 + 3·0.044715·x²)."""
    wide = x.astype(acc_dtype(x.dtype), copy=False)
    t = _gelu_tanh(wide)
    # x²·(1 - t²) is 0 far out, where x² itself would overflow in float32 beyond 1e19: clip before squaring
    near = array_module(x).clip(wide, -30, 30)
    slope = near * near
    slope *= 3 * _CUBIC
    slope += 1
    slope *= near
    slope *= _SQRT_2_OVER_PI
    slope *= 1 - t * t
    slope += 1
    slope += t
    slope *= 0.5
    slope *= dy
    return slope.astype(dy.dtype, copy=False)


def _gelu_tanh(x: Array) -> Array:
    library = array_module(x)
    near = library.clip(x, -30, 30)  # tanh is ±1 from 9 on; x³ must not overflow
    inner = near * near
    inner *= _CUBIC
    inner += 1
    inner *= near
    inner *= _SQRT_2_OVER_PI
    return library.tanh(inner, out=inner)


@elementwise
def add(a: Array, b: Array) -> Array:
    """Compute a + b."""
    return array_module(a, b).add(a, b)
