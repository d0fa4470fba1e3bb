"""Softmax, and softmax with cross-entropy, computed through log-sum-exp: no overflow, no logarithm of zero."""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module, profiling, require_active, require_arrays, require_same_device, workspace
from backend.checks import real, refusal
from backend.types import Array
from kernels import labels
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.native import Function
from kernels.core.tiling import row_group
from kernels.sums import axis_sums

_ROUNDS = 8
"""Rounds of rows that one block makes before more blocks pay for a second launch, which takes the mean."""

_SOFTMAX, _MEAN = Kernel("softmax.cu", "softmax"), Kernel("softmax.cu", "mean_loss")
_OF_INDICES, _OF_SOFT_TARGETS = (
    Kernel("softmax.cu", f"cross_entropy_of_{form}") for form in ("indices", "soft_targets")
)
_BACKWARD_OF_INDICES, _BACKWARD_OF_SOFT_TARGETS = (
    Kernel("softmax.cu", f"cross_entropy_backward_of_{form}") for form in ("indices", "soft_targets")
)

_SOFTMAX_NATIVE, _SOFTMAX_BACKWARD_NATIVE, _CROSS_ENTROPY_NATIVE, _MEAN_NATIVE, _CROSS_ENTROPY_BACKWARD_NATIVE = (
    Function("softmax.c", name)
    for name in ("softmax", "softmax_backward", "cross_entropy", "mean_loss", "cross_entropy_backward")
)
_INT32 = numpy.dtype("int32")
_OF_EXP = 32  # bytes that a core reads and writes in the time of a softmax's number


@profiling.operation
def softmax(x: Array) -> Array:
    """Compute exp(x) / Σ exp(x) along the last axis, any number of dimensions; dtype of ``x``."""
    require_active(x, "x")
    if not x.ndim:
        raise ValueError("x must have an axis of classes, got an array of no dimensions")
    if not x.size:
        return x.copy()
    return implementation(x, _softmax_numpy, _softmax_cuda, _softmax_native)(x)


def _softmax_numpy(x: Array) -> Array:
    y = numpy.exp(_shifted(x))
    y /= y.sum(axis=-1, keepdims=True)
    return y.astype(x.dtype, order="C", copy=False)


def _shifted(x: Array) -> Array:
    """Return scores on a CPU less their row's maximum, in the dtype of sums."""
    wide = x.astype(acc_dtype(x.dtype), copy=False)
    return wide - wide.max(axis=-1, keepdims=True)


def _softmax_native(x: Array) -> Array:
    rows, y = _contiguous(x, x.dtype), workspace.empty(x.shape, x.dtype)
    count, classes = x.size // x.shape[-1], x.shape[-1]
    _SOFTMAX_NATIVE.share(x.dtype, count, _OF_EXP * classes, rows, y, count, classes)
    return y


def _softmax_cuda(x: Array) -> Array:
    library = array_module(x)
    rows, y = library.ascontiguousarray(x), library.empty(x.shape, x.dtype)
    count, classes = x.size // x.shape[-1], x.shape[-1]
    group = row_group(classes)
    _SOFTMAX(count * group, rows, y, count, classes, group)
    return y


@profiling.operation
def softmax_backward(dy: Array, y: Array) -> Array:
    """Return the gradient of ``softmax`` for that of its output: y·(dy - Σ dy·y) along the last axis.

    Args:
        dy: the gradient of the output, shape and dtype of ``y``.
        y: what ``softmax`` returned.

    Raises:
        TypeError: host and device arrays are mixed, or lie on another device than the active one.
        ValueError: the shapes differ.
    """
    require_same_device(dy, y)
    require_active(dy, "dy")
    require_arrays(y=y)
    if dy.shape != y.shape:
        raise ValueError(f"dy must have the shape of y, {y.shape}, got {dy.shape}")
    return implementation(dy, _softmax_backward_numpy, _softmax_backward_cuda, _softmax_backward_native)(dy, y)


def _softmax_backward_numpy(dy: Array, y: Array) -> Array:
    dx = dy * y
    dx -= y * dx.sum(axis=-1, keepdims=True)
    return dx


def _softmax_backward_native(dy: Array, y: Array) -> Array:
    if not y.size:
        return dy.copy()
    dtype, classes = dy.dtype, y.shape[-1]
    dx, count = workspace.empty(y.shape, dtype), y.size // classes
    dy, y = _contiguous(dy, dtype), _contiguous(y, dtype)
    _SOFTMAX_BACKWARD_NATIVE.share(dtype, count, 3 * y.itemsize * classes, dy, y, dx, count, classes)
    return dx


def _softmax_backward_cuda(dy: Array, y: Array) -> Array:
    dx = dy * y
    dx -= y * axis_sums(dx, dx.ndim - 1, keepdims=True)
    return dx


@profiling.operation
def softmax_cross_entropy(x: Array, t: Array) -> tuple[Array, Array]:
    """Compute the mean cross-entropy of softmax(x) against labels, and the probabilities.

    Args:
        x: scores (N, classes).
        t: labels as class indices (N,), any integer dtype, or as a distribution (one-hot) (N, classes).

    Returns:
        loss: 0-d, the dtype of ``x`` (float32 for float16), on the device; to read it waits for the device. On a GPU
            a label out of range makes it NaN, since raising would wait for the device.
        y: softmax(x), (N, classes).

    Raises:
        TypeError: labels of another dtype.
        ValueError: shapes do not fit, or there are no classes; or, on the CPU, a label is out of range or a number of
            a distribution is not finite (the first such is named).

    Examples:
        >>> from backend import xp
        >>> from kernels.softmax import softmax_cross_entropy
        >>> loss, y = softmax_cross_entropy(xp.zeros((2, 4)), xp.array([0, 3]))
        >>> round(float(loss), 4), y[0]
        (1.3863, array([0.25, 0.25, 0.25, 0.25]))
    """
    require_same_device(x, t)
    _check(x, t)
    require_active(x)
    if not len(x):
        return array_module(x).zeros((), acc_dtype(x.dtype)), x.copy()
    if not x.shape[1]:
        raise ValueError(f"scores of {x.shape} have no classes")
    compute = implementation(
        x, _softmax_cross_entropy_numpy, _softmax_cross_entropy_cuda, _softmax_cross_entropy_native
    )
    return compute(x, t)


def _softmax_cross_entropy_numpy(x: Array, t: Array) -> tuple[Array, Array]:
    shifted = _shifted(x)
    powers = numpy.exp(shifted)
    total = powers.sum(axis=1, keepdims=True)
    cost = numpy.log(total) - shifted  # -log softmax
    if t.ndim == 1:
        costs = cost[numpy.arange(len(x)), t]
    else:  # a score of -inf costs infinitely much, and nothing where its label is 0
        costs = numpy.where(t != 0, cost, 0) * t
    loss = costs.sum(dtype=cost.dtype) / len(x)
    return loss, (powers / total).astype(x.dtype, order="C", copy=False)


def _softmax_cross_entropy_native(x: Array, t: Array) -> tuple[Array, Array]:
    x, dtype, wide = _contiguous(x, x.dtype), x.dtype, acc_dtype(x.dtype)
    y, losses, loss = workspace.empty(x.shape, dtype), numpy.empty(len(x), wide), numpy.empty((), wide)
    given = (x, *_labels_and_targets(t, wide), y, losses, loss, *x.shape)
    if not _CROSS_ENTROPY_NATIVE.share(dtype, len(x), _OF_EXP * x.shape[1], *given):
        _MEAN_NATIVE(dtype, losses, loss, len(x))
    return loss, y


def _softmax_cross_entropy_cuda(x: Array, t: Array) -> tuple[Array, Array]:
    library, dtype = array_module(x), acc_dtype(x.dtype)
    x, y = library.ascontiguousarray(x), library.empty(x.shape, x.dtype)
    group, one_block = row_group(x.shape[1]), is_one_launch(*x.shape)
    losses, loss = library.empty(0 if one_block else len(x), dtype), library.empty((), dtype)
    threads, sizes = block_size() if one_block else len(x) * group, (losses.size, *x.shape, group)
    if t.ndim == 1:
        indices, words = labels.words_of(t)
        _OF_INDICES(threads, x, indices, y, losses, loss, *sizes, words)
    else:
        _OF_SOFT_TARGETS(threads, x, library.ascontiguousarray(t, dtype), y, losses, loss, *sizes)
    if not one_block:
        _MEAN(block_size(), losses, loss, len(x))
    return loss, y


def is_one_launch(rows: int, classes: int) -> bool:
    """Return whether the kernel that computes the rows' losses takes their mean, too: it does in one block alone."""
    return rows * row_group(classes) <= _ROUNDS * block_size()


@profiling.operation
def softmax_cross_entropy_backward(y: Array, t: Array, scale: Any = 1.0) -> Array:
    """Return the gradient with respect to the scores: (y - t)·scale / N, dtype of ``y``.

    Args:
        y: probabilities from ``softmax_cross_entropy``.
        t: the same labels; errors as there.
        scale: the gradient of the operation after the loss: a number or a 0-d array.
    """
    library = array_module(y, t, scale)
    _check(y, t)
    require_active(y, "y")
    if library is numpy or not isinstance(scale, library.ndarray):
        scale = real("scale", scale)
    elif scale.ndim:
        raise refusal(TypeError, "scale", "a number", scale)
    compute = implementation(
        y,
        _softmax_cross_entropy_backward_numpy,
        _softmax_cross_entropy_backward_cuda,
        _softmax_cross_entropy_backward_native,
    )
    return compute(y, t, scale)


def _softmax_cross_entropy_backward_numpy(y: Array, t: Array, scale: Any) -> Array:
    if t.ndim == 1:
        dx = y.copy()
        dx[numpy.arange(len(y)), t] -= 1
    else:  # the gradient for a distribution that sums to s is s·y - t
        dx = y * t.sum(axis=1, keepdims=True, dtype=y.dtype)
        dx -= t
    dx *= scale / max(len(y), 1)
    return dx


def _softmax_cross_entropy_backward_native(y: Array, t: Array, scale: Any) -> Array:
    y, dtype = _contiguous(y, y.dtype), y.dtype
    dx = workspace.empty(y.shape, dtype)
    given = (y, *_labels_and_targets(t, acc_dtype(dtype)), dx, scale / max(len(y), 1), *y.shape)
    _CROSS_ENTROPY_BACKWARD_NATIVE.share(dtype, len(y), 3 * y.itemsize * y.shape[1], *given)
    return dx


def _contiguous(x: Array, dtype: Any) -> Array:
    return x if x.flags.c_contiguous and x.dtype == dtype else numpy.ascontiguousarray(x, dtype)


def _labels_and_targets(t: Array, dtype: Any) -> tuple[Array | None, Array | None]:
    """Return labels as the C kernels take them: class indices (N,) as int32, or targets (N, classes) in ``dtype``."""
    return (_contiguous(t, _INT32), None) if t.ndim == 1 else (None, _contiguous(t, dtype))


def _softmax_cross_entropy_backward_cuda(y: Array, t: Array, scale: Any) -> Array:
    library, dtype = array_module(y), acc_dtype(y.dtype)
    y, dx = library.ascontiguousarray(y), library.empty(y.shape, y.dtype)
    on_device = isinstance(scale, library.ndarray)
    array = scale.astype(dtype, copy=False) if on_device else library.empty(0, dtype)
    given = (array, dx, array.size, 0.0 if on_device else scale)
    if not y.size:
        return dx
    if t.ndim == 1:
        indices, words = labels.words_of(t)
        _BACKWARD_OF_INDICES(y.size, y, indices, *given, y.size, *y.shape, words)
    else:
        targets, group = library.ascontiguousarray(t, dtype), row_group(y.shape[1])
        _BACKWARD_OF_SOFT_TARGETS(len(y) * group, y, targets, *given, *y.shape, group)
    return dx


def _check(x: Array, t: Array) -> None:
    require_arrays(x=x)
    if x.ndim != 2:
        raise ValueError(f"scores are (N, classes), got shape {x.shape}")
    labels.check(t, x.shape)
