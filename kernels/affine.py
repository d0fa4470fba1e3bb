"""A fully connected layer's product with its bias and a ReLU, and what of its gradients is no product."""

from __future__ import annotations

import numpy

from backend import array_module, profiling, require_active, require_same_device, workspace
from backend.types import Array
from kernels.activations import relu_in_place
from kernels.core.checks import check_dtype
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.layout import target
from kernels.core.native import Function
from kernels.gemm import check_product, matmul, matmul_native
from kernels.masking import masked
from kernels.sums import column_sums, column_totals

_ADD_BIAS, _BIAS_GRADIENT = (Kernel("affine.cu", name) for name in ("add_bias", "bias_gradient"))
_MASKED_SUMS = Function("affine.c", "masked_sums")

_WIDTH = 32  # of affine.cu
_MOST_ROWS = 4096  # that one block goes through; beyond, more blocks pay for a second launch


def affine(x: Array, weight: Array, bias: Array | None, relu: bool = False) -> tuple[Array, Array | None]:
    """Compute x·weight + bias.

    Args:
        x: (N, inputs).
        weight: (inputs, outputs).
        bias: (outputs,) or None.
        relu: whether max(·, 0) follows.

    Returns:
        (N, outputs), dtype of ``x``; and with ``relu`` where that is above 0, bool (N, outputs), else None.

    Raises:
        TypeError: host and device arrays are mixed, or lie on another device than the active one.
    """
    require_same_device(x, weight, *([] if bias is None else [bias]))
    require_active(x, "x")
    native = _affine_native if x.dtype == weight.dtype == (weight if bias is None else bias).dtype else None
    return implementation(x, _affine_numpy, _affine_cuda, native)(x, weight, bias, relu)


def _affine_numpy(x: Array, weight: Array, bias: Array | None, relu: bool) -> tuple[Array, Array | None]:
    y = matmul(x, weight, bias=bias)  # float16 is rounded once, after the bias
    return y, relu_in_place(y) if relu else None


@profiling.operation
def _affine_native(x: Array, weight: Array, bias: Array | None, relu: bool) -> tuple[Array, Array | None]:
    check_product(x, weight, None, bias)
    positive = workspace.empty((len(x), weight.shape[1]), bool) if relu else None
    return matmul_native(x, weight, None, bias, positive), positive


def _affine_cuda(x: Array, weight: Array, bias: Array | None, relu: bool) -> tuple[Array, Array | None]:
    # By cuBLAS: nobody has measured ``kernels.implicit_gemm``, with a window of 1×1, against it for these shapes.
    y = matmul(x, weight)
    if bias is None:
        return y, relu_in_place(y) if relu else None
    return y, add_bias(y, bias, relu)


def add_bias(y: Array, bias: Array, relu: bool = False) -> Array | None:
    """Add ``bias`` (outputs,) to ``y`` (N, outputs), C-contiguous, in place; with ``relu`` max(·, 0) follows.

    Returns:
        With ``relu`` where the result is above 0, bool (N, outputs), else None.

    Raises:
        TypeError: host and device arrays are mixed, or lie on another device than the active one.
        ValueError: the shapes do not fit.
    """
    require_same_device(y, bias)
    require_active(y, "y")
    if bias.shape != y.shape[1:]:
        raise ValueError(f"bias must have shape {y.shape[1:]}, got {bias.shape}")
    return implementation(y, _add_bias_numpy, _add_bias_cuda)(y, bias, relu)


def _add_bias_numpy(y: Array, bias: Array, relu: bool) -> Array | None:
    y += bias
    return relu_in_place(y) if relu else None


def _add_bias_cuda(y: Array, bias: Array, relu: bool) -> Array | None:
    library = array_module(y)
    positive = library.empty(y.shape if relu else 0, "uint8")
    _ADD_BIAS(y.size, y, library.ascontiguousarray(bias, y.dtype), positive, y.size, y.shape[1], positive.size)
    return positive.view(bool) if relu else None


def bias_gradient(dy: Array, positive: Array, out: Array) -> Array:
    """Return the gradient of ``affine``'s output before the ReLU; write that of the bias to ``out``.

    Args:
        dy: (N, outputs), the gradient after the ReLU.
        positive: bool (N, outputs), as ``affine`` returned it.
        out: (outputs,); receives the column sums of the result, float16 summed in float32.

    Returns:
        ``dy`` where ``positive``, +0 elsewhere.

    Raises:
        ValueError: ``positive`` does not have the shape of ``dy``.
    """
    if positive.shape != dy.shape:
        raise ValueError(f"positive must have the shape of dy, {dy.shape}, got {positive.shape}")
    require_same_device(dy, positive, out)
    require_active(dy, "dy")
    check_dtype("an affine layer", dy)
    one_launch = len(dy) <= _MOST_ROWS and out.dtype == dy.dtype and out.flags.c_contiguous
    on_gpu = _bias_gradient_cuda if one_launch else _bias_gradient_numpy
    return implementation(dy, _bias_gradient_numpy, on_gpu, _bias_gradient_native)(dy, positive, out)


def _bias_gradient_numpy(dy: Array, positive: Array, out: Array) -> Array:
    dx = masked(dy, positive)
    column_sums(dx, out=out)
    return dx


@profiling.operation
def _bias_gradient_native(dy: Array, positive: Array, out: Array) -> Array:
    dy, positive = numpy.ascontiguousarray(dy), numpy.ascontiguousarray(positive, bool)
    dx = workspace.empty(dy.shape, dy.dtype)
    sums = column_totals(_MASKED_SUMS, dy, (positive, dx), target(out, acc_dtype(dy.dtype)))
    if sums is not out:
        out[...] = sums
    return dx


def _bias_gradient_cuda(dy: Array, positive: Array, out: Array) -> Array:
    library, tiles = array_module(dy), -(-dy.shape[1] // _WIDTH)
    dy, mask = library.ascontiguousarray(dy), library.ascontiguousarray(positive, bool).view("uint8")
    dx = library.empty(dy.shape, dy.dtype)
    _BIAS_GRADIENT(tiles * block_size(), dy, mask, dx, out, tiles, *dy.shape)
    return dx
