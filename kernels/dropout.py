"""Dropout by the counter-based generator: the same bits on every device.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (JMLR 2014).
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from backend import array_module, profiling, random, workspace, xp
from backend.checks import real, sizes
from backend.graph_numbers import numbers
from backend.types import Array
from kernels.core.dispatch import implementation
from kernels.core.launch import Kernel
from kernels.core.layout import as_nchw, elementwise
from kernels.core.native import Function
from kernels.masking import masked

_MASK, _MASK_AT, _DROP, _DROP_AT = (
    Kernel("philox.cu", name) for name in ("dropout_mask", "dropout_mask_at", "dropout", "dropout_at")
)

_NATIVE = Function("dropout.c", "dropout")

_ALIGNMENT = 16  # bytes, of what the kernel reads at once


@profiling.operation
def dropout_mask(shape: tuple[int, ...], ratio: float, generator: random.Generator | None = None) -> Array:
    """Return which elements stay: bool, ``shape``; False with probability ``ratio`` (to the nearest 2⁻³²).

    Bits are drawn from ``generator``, by default the current one, in memory order, which for 4-D (N, C, H, W) is
    (N, H, W, C).
    """
    shape, threshold = sizes("shape", shape), _threshold(ratio)
    by_words = array_module() is numpy or not _generator(generator).is_aligned(math.prod(shape))
    compute = _dropout_mask_numpy if by_words else _dropout_mask_cuda
    keep = compute(math.prod(shape), threshold, generator)
    if len(shape) == 4:
        n, c, h, w = shape
        return as_nchw(keep.reshape(n, h, w, c))
    return keep.reshape(shape)


def _dropout_mask_numpy(count: int, threshold: int, generator: random.Generator | None) -> Array:
    """Return for each of ``count`` random words whether it is at least the threshold: bool (count,)."""
    return _generator(generator).bits(count) >= threshold


def _dropout_mask_cuda(count: int, threshold: int, generator: random.Generator | None) -> Array:
    blocks, place = xp.empty(-(-count // 4), "uint32"), _place(count, generator)
    if isinstance(place, list):
        _MASK(blocks.size, blocks, blocks.size, threshold, *place)
    else:
        _MASK_AT(blocks.size, blocks, place, blocks.size, threshold)
    return blocks.view("bool")[:count]


@elementwise
def dropout(x: Array, ratio: float, generator: random.Generator | None = None) -> tuple[Array, Array]:
    """Set numbers of ``x`` to +0 where ``dropout_mask`` is False, in one launch on a GPU.

    Args:
        x: float16, float32 or float64, of any shape.
        ratio: the share that is dropped, from 0 to 1.
        generator: by default the current one.

    Returns:
        The numbers that stay and zeros, shape and dtype of ``x``; and the mask, bool of that shape.
    """
    compute = implementation(x, _dropout_numpy, _dropout_cuda, _dropout_native)
    if not _generator(generator).is_aligned(x.size):  # the kernels begin with a block of four words
        compute = _dropout_numpy
    return compute(x, _threshold(ratio), generator)


def _dropout_numpy(x: Array, threshold: int, generator: random.Generator | None) -> tuple[Array, Array]:
    keep = _dropout_mask_numpy(x.size, threshold, generator)
    return masked(x.reshape(-1), keep).reshape(x.shape), keep.reshape(x.shape)


def _dropout_native(x: Array, threshold: int, generator: random.Generator | None) -> tuple[Array, Array]:
    x = x if x.flags.c_contiguous else numpy.ascontiguousarray(x)
    y, keep = workspace.empty(x.shape, x.dtype), workspace.empty(x.shape, bool)
    place = _generator(generator).reserve(x.size)
    _NATIVE.share(x.dtype, -(-x.size // 4), 4 * (2 * x.itemsize + 1), x, y, keep, threshold, *place, x.size)
    return y, keep


def _dropout_cuda(x: Any, threshold: int, generator: random.Generator | None) -> tuple[Array, Array]:
    library = array_module(x)
    x = x if x.flags.c_contiguous else library.ascontiguousarray(x)
    y = workspace.empty(x.shape, x.dtype)
    blocks, place = workspace.empty(-(-x.size // 4), "uint32"), _place(x.size, generator)
    sizes = (x.size, blocks.size, int(x.data.ptr % _ALIGNMENT == 0), threshold)
    if isinstance(place, list):
        _DROP(blocks.size, x, y, blocks, *sizes, *place)
    else:
        _DROP_AT(blocks.size, x, y, blocks, place, *sizes)
    return y, blocks.view("bool")[: x.size].reshape(x.shape)


def _generator(given: random.Generator | None) -> random.Generator:
    return given or random.current()


def _threshold(ratio: float) -> int:
    """Return the least random word whose element stays."""
    return min(round(real("ratio", ratio, least=0, most=1) * 2**32), 2**32 - 1)


def _place(count: int, generator: random.Generator | None) -> list[int] | Array:
    """Return seed, stream and position of the next words as lower and upper halves; in a graph, on the device."""

    part = _generator(generator).take_part()

    def place() -> list[int]:  # asked anew for every replay of a graph
        reserved = _generator(generator).reserve(count, part)
        return [half for number in reserved for half in (number & 0xFFFFFFFF, number >> 32)]

    return numbers(place, "uint32")
