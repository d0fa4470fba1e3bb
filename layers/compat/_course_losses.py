"""Compute the course's losses, each together with its gradient."""

from __future__ import annotations

from backend import require_same_device
from backend.types import Array
from kernels import softmax
from kernels.core.dtypes import acc_dtype
from kernels.hinge import hinge
from layers import checks
from layers.compat._course_arguments import as_labels, operands


def softmax_loss(x: Array, y: Array) -> tuple[Array, Array]:
    """Compute the mean cross-entropy of softmax(x) against labels, and its gradient.

    Args:
        x: scores (N, C).
        y: classes (N,), any integer dtype.

    Returns:
        loss, 0-d and on the device (float32 for float16), and dx (N, C), dtype of ``x``. On a GPU a label out of range
        makes the loss NaN, since raising would wait for the device.

    Raises:
        TypeError: labels are not integers.
        ValueError: shapes do not fit, there is one class only; or, on the CPU, a label is out of range.
    """
    (x,), y = operands("softmax_loss", x=x), as_labels("softmax_loss", y)
    require_same_device(x, y)
    checks.more_than_one_score("softmax_loss", x.shape[-1] if x.ndim else 0)
    loss, probabilities = softmax.softmax_cross_entropy(x.astype(acc_dtype(x.dtype), copy=False), y)
    return loss, softmax.softmax_cross_entropy_backward(probabilities, y).astype(x.dtype, copy=False)


def svm_loss(x: Array, y: Array) -> tuple[Array, Array]:
    """Compute the mean hinge loss Σ max(0, x[i, j] - x[i, y] + 1) over the wrong classes j, and its gradient.

    It is the multi-class loss of Weston and Watkins (1999). The gradient of a margin of exactly 0 is 0.

    Args:
        x: scores (N, C).
        y: classes (N,), any integer dtype.

    Returns:
        loss and dx as of ``softmax_loss``.

    Raises:
        TypeError: labels are not integers.
        ValueError: shapes do not fit, there is one class only; or, on the CPU, a label is out of range.
    """
    (x,), y = operands("svm_loss", x=x), as_labels("svm_loss", y)
    require_same_device(x, y)
    if x.ndim != 2:
        raise ValueError(f"svm_loss needs scores (N, C), got shape {x.shape}")
    if x.shape[1] == 1:
        raise ValueError("svm_loss needs scores of at least 2 classes, got 1")
    return hinge(x, y)
