"""Keep some numbers and drop others, exactly."""

from __future__ import annotations

import functools
from typing import Any

import numpy

from backend import workspace
from backend.types import Array
from kernels.core.dispatch import implementation
from kernels.core.layout import elementwise
from kernels.core.native import Function, share

_NATIVE = Function("masking.c", "apply_mask")


def apply_mask(values: Array, mask: Array, out: Array) -> None:
    """Write ``values`` where ``mask`` is True and +0 elsewhere, for arrays of one shape and library."""
    implementation(values, _apply_mask_numpy, _apply_mask_cuda, _apply_mask_native)(values, mask, out)


def _apply_mask_numpy(values: Array, mask: Array, out: Array) -> None:
    out[...] = numpy.where(mask, values, 0)  # the product would keep infinities and NaN, and make negative zeros


def _apply_mask_native(values: Array, mask: Array, out: Array) -> None:
    if not out.flags.c_contiguous:
        out[...] = _masked_native(values, mask)
        return
    dtype, values, mask = out.dtype, numpy.ascontiguousarray(values, out.dtype), numpy.ascontiguousarray(mask, bool)
    item_bytes = 2 * out.itemsize + 1
    share(out.size, item_bytes, lambda first, last: _NATIVE(dtype, values, mask, out, out.size, first, last))


def _apply_mask_cuda(values: Array, mask: Array, out: Array) -> None:
    bits = numpy.dtype(f"int{8 * values.dtype.itemsize}")
    _apply_mask_kernel()(values.view(bits), mask, out.view(bits))


@functools.cache
def _apply_mask_kernel() -> Any:
    import cupy

    # A choice by the mask would have a thread wait for it before it reads the number.
    return cupy.ElementwiseKernel("T values, bool mask", "T out", "out = values & -T(mask)", "xpnet_mask")


@elementwise
def masked(values: Array, mask: Array) -> Array:
    """Return ``values`` where ``mask`` (bool) is True, +0 elsewhere: shape and dtype of ``values``."""
    return implementation(values, _masked_numpy, _masked_cuda, _masked_native)(values, mask)


def _masked_numpy(values: Array, mask: Array) -> Array:
    return numpy.where(mask, values, 0)


def _masked_native(values: Array, mask: Array) -> Array:
    return _NATIVE.each(values, mask.astype(bool, copy=False))


def _masked_cuda(values: Array, mask: Array) -> Array:
    out = workspace.empty(values.shape, values.dtype)
    _apply_mask_cuda(values, mask, out)
    return out
