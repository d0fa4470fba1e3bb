"""An operation whose kernels are timed: its inputs, and the least bytes that it has to move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend import random

DTYPES = ("float32", "float16")

Call = Callable[[], Any]
KernelRow = dict[str, Any]


@dataclass(frozen=True)
class KernelCase:
    """One public operation, on one shape and dtype.

    Attributes:
        operation: its name, for the table and ``--only``.
        shape: of its input, as text.
        dtype: of its arrays.
        kernels: the kernels of ``.cu`` files that it launches, in order; empty if their blocks have one size only:
            CuPy's, cuBLAS's, and those of a convolution on tensor cores.
        moves: bytes of every array that it must read or write, by the array's name. Their sum is the least bytes.
        inputs: makes random arrays on the active device, different ones at every call.
        bind: takes these arrays, on any device, does the work that is not timed, and returns the function to time,
            which returns one or several arrays.
        tolerance: the largest difference from the CPU's values, in ulps of the largest number of each array.
        flops: multiplications and additions, if they may take longer than moving the bytes.
        detail: further sizes that are not in ``shape``.
    """

    operation: str
    shape: str
    dtype: str
    kernels: tuple[str, ...]
    moves: dict[str, int]
    inputs: Callable[[], tuple[Any, ...]]
    bind: Callable[..., Call]
    tolerance: float = 0.0
    flops: int = 0
    detail: str = ""

    @property
    def size(self) -> str:
        """Shape and detail as text."""
        return f"{self.shape}, {self.detail}" if self.detail else self.shape

    @property
    def least_bytes(self) -> int:
        """The sum of ``moves``."""
        return sum(self.moves.values())

    def __str__(self) -> str:
        return f"{self.operation} of {self.size} in {self.dtype}"


def centered(shape: tuple[int, ...], dtype: str) -> Any:
    """Return random numbers from -1 to 1 on the active device."""
    values = random.uniform(shape, dtype)
    values *= 2
    values -= 1
    return values


def nbytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Return the bytes of an array."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def by(*sizes: int) -> str:
    """Return a shape as text."""
    return "x".join(map(str, sizes))
