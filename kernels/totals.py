"""Add up an epoch's loss and right answers, batch by batch, on the device where they are computed."""

from __future__ import annotations

import numpy

from backend import array_module, require_active, require_same_device
from backend.types import Array
from kernels import labels
from kernels.core.dispatch import implementation
from kernels.core.launch import Kernel, block_size

_ADD = Kernel("totals.cu", "add_to_totals")


def add_to_totals(totals: Array, loss: Array, y: Array, t: Array) -> None:
    """Add to ``totals`` a batch's loss times its rows, its rows whose largest number is at their label, and its rows.

    Args:
        totals: float64 (3,); changed.
        loss: 0-d, the mean loss of the batch, in the dtype of sums: float32 for float16, otherwise that of ``y``.
        y: (N, classes), float16, float32 or float64. The first of equal numbers is the largest, the first NaN larger
            than all.
        t: labels (N,), of any integer dtype.

    Raises:
        TypeError: labels are not of an integer dtype, or host and device arrays are mixed.
        ValueError: shapes do not fit, there are no classes, or the totals are not float64 (3,).
    """
    require_same_device(totals, loss, y, t)
    require_active(y, "y")
    labels.check_form(t, y.shape, distributions=False)
    if not y.shape[1]:
        raise ValueError(f"scores of {y.shape} have no classes")
    if totals.shape != (3,) or totals.dtype != "float64":
        raise ValueError(f"totals must be float64 (3,), got {totals.dtype} {totals.shape}")
    implementation(y, _add_to_totals_numpy, _add_to_totals_cuda)(totals, loss, y, t)


def _add_to_totals_numpy(totals: Array, loss: Array, y: Array, t: Array) -> None:
    totals[0] += loss * len(t)
    totals[1] += numpy.count_nonzero(y.argmax(axis=1) == t)
    totals[2] += len(t)


def _add_to_totals_cuda(totals: Array, loss: Array, y: Array, t: Array) -> None:
    indices, words = labels.words_of(t)
    y = array_module(y).ascontiguousarray(y)
    _ADD(block_size() if y.size else 0, totals, loss, y, indices, *y.shape, words)
