"""Elementwise activations and their gradients. 4-D arrays are computed in their channels-last memory."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import numpy

from backend import array_module, profiling, workspace
from backend.checks import real, refusal
from backend.types import Array
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.layout import as_nchw, elementwise, to_nhwc
from kernels.core.native import Function
from kernels.masking import masked

_RELU, _RELU6, _LEAKY_RELU, _LEAKY_RELU_BACKWARD, _SIGMOID, _SIGMOID_BACKWARD = (
    Function("activations.c", name)
    for name in ("relu", "relu6", "leaky_relu", "leaky_relu_backward", "sigmoid", "sigmoid_backward")
)
_TANH, _TANH_BACKWARD, _GELU, _GELU_BACKWARD, _ADD, _MULTIPLY, _SCALE = (
    Function("activations.c", name)
    for name in ("tanh", "tanh_backward", "gelu", "gelu_backward", "add", "multiply", "scale")
)


@elementwise
def relu(x: Array) -> tuple[Array, Array]:
    """Compute max(x, 0), and where x > 0 (bool). NaN passes."""
    return _relu(x)


def _relu(x: Array) -> tuple[Array, Array]:
    y, positive = _output_and_mask(x)
    implementation(x, _relu_numpy, _relu_cuda, _relu_native)(x, y, positive)
    return y, positive


def _output_and_mask(x: Array) -> tuple[Array, Array]:
    return workspace.empty(x.shape, x.dtype), workspace.empty(x.shape, bool)


def _relu_numpy(x: Array, y: Array, positive: Array) -> None:
    numpy.maximum(x, 0, out=y)
    numpy.greater(y, 0, out=positive)


def _relu_native(x: Array, y: Array, positive: Array) -> None:
    x = numpy.ascontiguousarray(x)
    _RELU.share(x.dtype, x.size, 2 * x.itemsize + 1, x, y, positive, x.size)


def _relu_cuda(x: Array, y: Array, positive: Array) -> None:
    _relu_kernel()(x, y, positive)


@functools.cache
def _relu_kernel() -> Any:
    import cupy

    code = "positive = x > T(0); y = positive || x != x ? x : T(0)"
    return cupy.ElementwiseKernel("T x", "T y, bool positive", code, "xpnet_relu")


def rectify(y: Array, positive: Array) -> None:
    """Compute ``relu`` in place, for a piece of an operation's output while it is in cache; write ``positive``."""
    implementation(y, _relu_numpy, _relu_cuda)(y, y, positive)


@profiling.operation
def relu_in_place(y: Array) -> Array:
    """Compute ``relu`` in place, for an operation's whole output, if 4-D channels last; return where it is positive."""
    storage = to_nhwc(y) if y.ndim == 4 else y
    positive = workspace.empty(storage.shape, bool)
    native = _relu_native if storage.flags.c_contiguous else None
    implementation(y, _relu_numpy, _relu_cuda, native)(storage, storage, positive)
    return as_nchw(positive) if y.ndim == 4 else positive


@elementwise
def relu6(x: Array) -> tuple[Array, Array]:
    """Compute min(max(x, 0), 6), and where 0 < x < 6 (bool). NaN passes."""
    y, between = _output_and_mask(x)
    implementation(x, _relu6_numpy, _relu6_cuda, _relu6_native)(x, y, between)
    return y, between


def _relu6_numpy(x: Array, y: Array, between: Array) -> None:
    numpy.maximum(x, 0, out=y)
    numpy.minimum(y, 6, out=y)
    numpy.logical_and(x > 0, x < 6, out=between)


def _relu6_native(x: Array, y: Array, between: Array) -> None:
    x = numpy.ascontiguousarray(x)
    _RELU6.share(x.dtype, x.size, 2 * x.itemsize + 1, x, y, between, x.size)


def _relu6_cuda(x: Array, y: Array, between: Array) -> None:
    _relu6_kernel()(x, y, between)


@functools.cache
def _relu6_kernel() -> Any:
    import cupy

    code = "between = x > T(0) && x < T(6); y = between || x != x ? x : x > T(0) ? T(6) : T(0)"
    return cupy.ElementwiseKernel("T x", "T y, bool between", code, "xpnet_relu6")


@elementwise
def add(a: Array, b: Array) -> Array:
    """Compute a + b."""
    return implementation(a, operator.add, operator.add, _ADD.each)(a, b)


@elementwise
def multiply(a: Array, b: Array) -> Array:
    """Compute a · b."""
    return implementation(a, operator.mul, operator.mul, _MULTIPLY.each)(a, b)


@elementwise
def scale(x: Array, factor: float) -> Array:
    """Compute factor · x in the dtype of ``x``, for 0 ≤ factor ≤ 65504, the largest float16."""
    factor = real("factor", factor, least=0, most=65504)
    return implementation(x, operator.mul, operator.mul, _SCALE.each)(x, _rounded(factor, x))


def _rounded(factor: float, x: Array) -> float:
    """Return a factor as NumPy and CuPy round it before they multiply ``x``."""
    return float(x.dtype.type(factor)) if x.dtype.kind == "f" else factor


@elementwise
def leaky_relu(x: Array, slope: float) -> tuple[Array, Array]:
    """Compute x where x > 0, else slope·x, for 0 ≤ slope ≤ 1 (Maas, Hannun and Ng, 2013); and where x > 0 (bool).

    With slope 0 it is ``relu``, for infinities too, where 0·x would be NaN.
    """
    slope = _rounded(real("slope", slope, least=0, most=1), x)
    return _relu(x) if slope == 0 else implementation(x, _leaky_relu, _leaky_relu, _leaky_relu_native)(x, slope)


def _leaky_relu(x: Array, slope: float) -> tuple[Array, Array]:
    return array_module(x).maximum(x, x * slope), x > 0


def _leaky_relu_native(x: Array, slope: float) -> tuple[Array, Array]:
    x, y, positive = numpy.ascontiguousarray(x), *_output_and_mask(x)
    _LEAKY_RELU.share(x.dtype, x.size, 2 * x.itemsize + 1, x, slope, y, positive, x.size)
    return y, positive


@elementwise
def leaky_relu_backward(dy: Array, positive: Array, slope: float) -> Array:
    """Return dy where ``positive``, else slope·dy."""
    slope = _rounded(real("slope", slope, least=0, most=1), dy)
    if slope == 0:
        return masked(dy, positive)
    compute = implementation(dy, _leaky_relu_backward, _leaky_relu_backward, _LEAKY_RELU_BACKWARD.each)
    return compute(dy, positive.astype(bool, copy=False), slope)


def _leaky_relu_backward(dy: Array, positive: Array, slope: float) -> Array:
    return array_module(dy).where(positive, dy, dy * slope)


@elementwise
def sigmoid(x: Array) -> Array:
    """Compute 1 / (1 + exp(-x)), as exp(min(x, 0)) / (1 + exp(-|x|)): accurate at both ends, and nothing overflows."""
    _require_floating(x)
    return implementation(x, _sigmoid, _sigmoid, _SIGMOID.each)(x)


def _sigmoid(x: Array) -> Array:
    library = array_module(x)
    wide = x.astype(acc_dtype(x.dtype), copy=False)
    y = library.exp(library.minimum(wide, 0))
    y /= 1 + library.exp(-library.abs(wide))
    return y.astype(x.dtype, copy=False)


@elementwise
def sigmoid_backward(dy: Array, y: Array) -> Array:
    """Return dy·y·(1 - y)."""
    return implementation(dy, _sigmoid_backward, _sigmoid_backward, _SIGMOID_BACKWARD.each)(dy, y)


def _sigmoid_backward(dy: Array, y: Array) -> Array:
    return (1 - y) * y * dy


@elementwise
def tanh(x: Array) -> Array:
    """Compute the hyperbolic tangent."""
    plain = array_module(x).tanh
    return implementation(x, plain, plain, _TANH.each)(x)


@elementwise
def tanh_backward(dy: Array, y: Array) -> Array:
    """Return dy·(1 - y²)."""
    return implementation(dy, _tanh_backward, _tanh_backward, _TANH_BACKWARD.each)(dy, y)


def _tanh_backward(dy: Array, y: Array) -> Array:
    return (1 - y * y) * dy


def _require_floating(x: Array) -> None:
    """Raise a TypeError for integers, to which a result would be rounded."""
    if x.dtype.kind != "f":
        raise refusal(TypeError, "x", "a floating-point array", x)


_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715
_GELU_CODE = f"""
    typedef WIDE A;
    const A wide = x, near = wide < -30 ? A(-30) : wide > 30 ? A(30) : wide;
    const A t = tanh((near * near * A({_CUBIC!r}) + 1) * near * A({_SQRT_2_OVER_PI!r}));
"""  # as _gelu_tanh; a NaN passes


@elementwise
def gelu(x: Array) -> Array:
    """Compute x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))).

    Hendrycks and Gimpel, "Gaussian error linear units" (2016), section 2.
    """
    _require_floating(x)
    return implementation(x, _gelu_numpy, _gelu_cuda, _GELU.each)(x)


def _gelu_numpy(x: Array) -> Array:
    wide = x.astype(acc_dtype(x.dtype), copy=False)
    y = (_gelu_tanh(wide) + 1) * 0.5 * wide  # the half before x: twice the largest number is none
    return y.astype(x.dtype, copy=False)


def _gelu_cuda(x: Array) -> Array:
    y = workspace.empty(x.shape, x.dtype)
    _gelu_kernel("T x", "T y", "y = (t + 1) * A(0.5) * wide", x.dtype)(x, y)
    return y


@elementwise
def gelu_backward(dy: Array, x: Array) -> Array:
    """Return dy·g'(x) with g = ``gelu``; with t its tanh: g' = (1 + t)/2 + x/2·(1 - t²)·√(2/π)·(1 + 3·0.044715·x²)."""
    return implementation(dy, _gelu_backward_numpy, _gelu_backward_cuda, _GELU_BACKWARD.each)(dy, x)


def _gelu_backward_numpy(dy: Array, x: Array) -> Array:
    wide = x.astype(acc_dtype(x.dtype), copy=False)
    t = _gelu_tanh(wide)
    # x²·(1 - t²) is 0 far out, where x² itself would overflow in float32 beyond 1e19: clip before squaring
    near = numpy.clip(wide, -30, 30)
    inner = (near * near * (3 * _CUBIC) + 1) * near * _SQRT_2_OVER_PI
    slope = (inner * (1 - t * t) + 1 + t) * 0.5
    return (slope * dy).astype(dy.dtype, copy=False)


def _gelu_tanh(x: Array) -> Array:
    near = numpy.clip(x, -30, 30)  # tanh is ±1 from 9 on; x³ must not overflow
    return numpy.tanh((near * near * _CUBIC + 1) * near * _SQRT_2_OVER_PI)


def _gelu_backward_cuda(dy: Array, x: Array) -> Array:
    dx = workspace.empty(dy.shape, dy.dtype)
    code = f"""
        const A inner = (near * near * A({3 * _CUBIC!r}) + 1) * near * A({_SQRT_2_OVER_PI!r});
        dx = (inner * (1 - t * t) + 1 + t) * A(0.5) * A(dy);
    """
    _gelu_kernel("T x, U dy", "U dx", code, x.dtype)(x, dy, dx)
    return dx


@functools.cache
def _gelu_kernel(given: str, result: str, code: str, dtype: numpy.dtype) -> Any:
    import cupy

    wide = "double" if dtype == numpy.float64 else "float"
    return cupy.ElementwiseKernel(given, result, _GELU_CODE.replace("WIDE", wide) + code, "xpnet_gelu")
