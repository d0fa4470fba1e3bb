"""Dropout masks from the counter-based generator: the same bits on every device.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (JMLR 2014).
"""

from __future__ import annotations

import math

import numpy

from backend import array_module, profiling, random, xp
from backend.checks import real, sizes
from backend.graph_numbers import numbers
from backend.types import Array
from kernels.core.launch import Kernel
from kernels.core.layout import as_nchw

_MASK = Kernel("philox.cu", "dropout_mask")
_MASK_AT = Kernel("philox.cu", "dropout_mask_at")


@profiling.operation
def dropout_mask(shape: tuple[int, ...], ratio: float, generator: random.Generator | None = None) -> Array:
    """Return which elements stay: bool, ``shape``; False with probability ``ratio`` (to the nearest 2⁻³²).

    Bits are drawn from ``generator``, by default the current one, in memory order, which for 4-D (N, C, H, W) is
    (N, H, W, C).
    """
    shape, ratio = sizes("shape", shape), real("ratio", ratio, least=0, most=1)
    count, threshold = math.prod(shape), min(round(ratio * 2**32), 2**32 - 1)
    compute = _dropout_mask_numpy if array_module() is numpy else _dropout_mask_cuda
    keep = compute(count, threshold, generator)
    if len(shape) == 4:
        n, c, h, w = shape
        return as_nchw(keep.reshape(n, h, w, c))
    return keep.reshape(shape)


def _dropout_mask_numpy(count: int, threshold: int, generator: random.Generator | None) -> Array:
    """Return for each of ``count`` random words whether it is at least the threshold: bool (count,)."""
    return (generator or random.current()).bits(count) >= threshold


def _dropout_mask_cuda(count: int, threshold: int, generator: random.Generator | None) -> Array:
    blocks = xp.empty(-(-count // 4), "uint32")  # a byte for each of a block's four words

    def place() -> list[int]:  # asked anew for every replay of a graph
        reserved = (generator or random.current()).reserve(count)
        return [half for number in reserved for half in (number & 0xFFFFFFFF, number >> 32)]

    halves = numbers(place, "uint32")
    if isinstance(halves, list):
        _MASK(blocks.size, blocks, blocks.size, threshold, *halves)
    else:
        _MASK_AT(blocks.size, blocks, halves, blocks.size, threshold)
    return blocks.view("bool")[:count]
