"""What operations ask of images, columns and gradients."""

from __future__ import annotations

from typing import Any

from backend import require_active
from backend.checks import choice
from kernels.core.dtypes import FLOATING
from kernels.core.geometry import Geometry

COLUMN_ORDERS = ("CHW", "HWC")
"""What runs along a row of columns: channel, row and column of the window, or row, column and channel."""


def check_order(order: str) -> None:
    """Raise a ValueError unless ``order`` names a column order."""
    choice("order", order, COLUMN_ORDERS)


def check_images(operation: str, x: Any) -> None:
    """Raise a ValueError unless ``x`` is a batch of images, a TypeError unless it lies on the active device."""
    require_active(x, "x")
    if x.ndim != 4:
        raise ValueError(f"{operation} needs images (N, C, H, W), got shape {x.shape}")


def check_dtype(operation: str, x: Any) -> None:
    """Raise a TypeError unless ``x`` holds numbers that the kernels calculate with. What only copies takes any."""
    if x.dtype not in FLOATING:
        raise TypeError(f"{operation} needs float16, float32 or float64, got {x.dtype}")


def check_gradient(dy: Any, input_shape: tuple, channels: int, geometry: Geometry) -> None:
    """Raise a ValueError unless ``dy`` has the shape of the output of an operation that slides a window.

    Args:
        dy: (N, channels, OH, OW).
        input_shape: (N, C, H, W) of the input.
    """
    expected = (input_shape[0], channels, *geometry.output)
    if dy.shape != expected:
        raise ValueError(f"the gradient has shape {dy.shape}, the output {expected}")
