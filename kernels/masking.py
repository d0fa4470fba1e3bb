"""Keep some numbers and drop others, exactly."""

from __future__ import annotations

import functools
from typing import Any

import numpy

from backend import workspace
from backend.types import Array
from kernels.core.dispatch import implementation
from kernels.core.layout import elementwise
from kernels.core.native import Function

_NATIVE = Function("masking.c", "apply_mask")


@functools.cache
def _mask_kernel() -> Any:
    import cupy

    # A choice by the mask would have a thread wait for it before it reads the number.
    return cupy.ElementwiseKernel("T values, bool mask", "T out", "out = values & -T(mask)", "xpnet_mask")


@elementwise
def masked(values: Array, mask: Array) -> Array:
    """Return ``values`` where ``mask`` (bool) is True, +0 elsewhere: shape and dtype of ``values``."""
    return implementation(values, _masked_numpy, _masked_cuda, _masked_native)(values, mask)


def _masked_numpy(values: Array, mask: Array) -> Array:
    return numpy.where(mask, values, 0)  # the product would keep infinities and NaN, and make negative zeros


def _masked_native(values: Array, mask: Array) -> Array:
    return _NATIVE.each(values, mask.astype(bool, copy=False))


def _masked_cuda(values: Array, mask: Array) -> Array:
    out, bits = workspace.empty(values.shape, values.dtype), numpy.dtype(f"int{8 * values.dtype.itemsize}")
    _mask_kernel()(values.view(bits), mask, out.view(bits))
    return out
