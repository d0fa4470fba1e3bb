"""Convolution and its input gradient by the C kernels of ``convolution.c``: directly, without columns."""

from __future__ import annotations

import functools

import numpy

from backend import workspace
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from kernels.core.filters import taps_first
from kernels.core.geometry import Geometry
from kernels.core.native import Function, share

_PACK, _FORWARD, _BACKWARD_INPUT = (
    Function("convolution.c", f"convolution_{name}") for name in ("pack", "forward", "backward_input")
)

_LANES = 16
"""The most numbers of a vector: filters are padded to whole vectors."""

_PRODUCTS_PER_BYTE = 4
"""Products that take about as long as reading or writing a byte of memory."""


def forward(
    source: Array, weight: Array, bias: Array | None, geometry: Geometry, groups: int, y: Array, positive: Array | None
) -> None:
    """Compute ``y`` (N, OH, OW, FN) of ``source`` (N, H, W, C); with ``positive``, a ReLU follows."""
    n, fn, dtype = len(y), len(weight), y.dtype
    bias = None if bias is None else numpy.ascontiguousarray(bias)
    operands = source, _packed(weight, groups, False), bias, y, positive, _zeros(source.shape[3], dtype)
    sizes = geometry.block(source.shape[3]), n, fn, groups
    cost = weight[0].size * fn // _PRODUCTS_PER_BYTE
    share(n * y.shape[1] * y.shape[2], cost, lambda first, last: _FORWARD(dtype, *operands, *sizes, first, last))


def backward_input(gradient: Array, weight: Array, geometry: Geometry, groups: int, dx: Array) -> None:
    """Compute ``dx`` (N, H, W, C) of ``gradient`` (N, OH, OW, FN)."""
    n, fn, dtype = len(dx), len(weight), dx.dtype
    operands = gradient, _packed(weight, groups, True), dx, _zeros(fn, dtype)
    sizes = geometry.block(dx.shape[3]), n, fn, groups
    (sh, sw), pixels = geometry.stride, dx.shape[1] * dx.shape[2]
    cost = weight[0].size * fn // (sh * sw * _PRODUCTS_PER_BYTE)
    share(n * pixels, cost, lambda first, last: _BACKWARD_INPUT(dtype, *operands, *sizes, first, last))


def _packed(weight: Array, groups: int, transposed: bool) -> Array:
    """Return the filters in the order in which the kernels read them."""
    fn, own, fh, fw = weight.shape
    depth, width = (fn // groups, own) if transposed else (own, fn // groups)
    packed = workspace.empty(groups * fh * fw * depth * -(-width // _LANES) * _LANES, acc_dtype(weight.dtype))
    filters = numpy.ascontiguousarray(taps_first(weight))
    _PACK(weight.dtype, filters, packed, fh * fw, own, fn, groups, int(transposed), packed.size)
    return packed


@functools.lru_cache(maxsize=64)
def _zeros(count: int, dtype: numpy.dtype) -> Array:
    return numpy.zeros(count, dtype)
