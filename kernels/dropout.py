"""Dropout masks from the counter-based generator: the same bits on every device.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (JMLR 2014).
"""

from __future__ import annotations

import math

import numpy

from backend import array_module, profiling, random, xp
from backend.checks import real, sizes
from backend.types import Array
from kernels.core.launch import Kernel
from kernels.core.layout import as_nchw

_MASK = Kernel("philox.cu", "dropout_mask")


@profiling.operation
def dropout_mask(shape: tuple[int, ...], ratio: float, generator: random.Generator | None = None) -> Array:
    """Return which elements stay: bool, ``shape``; False with probability ``ratio`` (to the nearest 2⁻³²).

    Bits are drawn from ``generator``, by default the current one, in memory order, which for 4-D (N, C, H, W) is
    (N, H, W, C).
    """
    shape, ratio = sizes("shape", shape), real("ratio", ratio, least=0, most=1)
    count, threshold = math.prod(shape), min(round(ratio * 2**32), 2**32 - 1)
    compute = _dropout_mask_numpy if array_module() is numpy else _dropout_mask_cuda
    keep = compute(count, threshold, generator or random.current())
    if len(shape) == 4:
        n, c, h, w = shape
        return as_nchw(keep.reshape(n, h, w, c))
    return keep.reshape(shape)


def _dropout_mask_numpy(count: int, threshold: int, generator: random.Generator) -> Array:
    """Return for each of ``count`` random words whether it is at least the threshold: bool (count,)."""
    return generator.bits(count) >= threshold


def _dropout_mask_cuda(count: int, threshold: int, generator: random.Generator) -> Array:
    blocks = xp.empty(-(-count // 4), "uint32")  # a byte for each of a block's four words
    halves = (half for number in generator.reserve(count) for half in (number & 0xFFFFFFFF, number >> 32))
    _MASK(blocks.size, blocks, blocks.size, threshold, *halves)
    return blocks.view("bool")[:count]
