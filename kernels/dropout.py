"""Dropout masks from the counter-based generator: the same bits on every device.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (JMLR 2014).
"""

from __future__ import annotations

from typing import Any

from backend import random
from kernels.layout import images


def dropout_mask(shape: tuple[int, ...], ratio: float) -> Any:
    """Which elements stay: bool, ``shape``; False with probability ``ratio`` (to the nearest 2⁻³²).

    Bits are drawn in memory order, which for 4-D (N, C, H, W) is (N, H, W, C).
    """
    count = 1
    for size in shape:
        count *= size
    keep = random.bits(count) >= min(round(ratio * 2**32), 2**32 - 1)
    if len(shape) == 4:
        n, c, h, w = shape
        return images(keep.reshape(n, h, w, c))
    return keep.reshape(shape)
