"""A call whose kernels are timed: its inputs, and the bytes that it has to move at least."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend import random

DTYPES = ("float32", "float16")

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One public operation, on one shape and dtype.

    Attributes:
        operation: its name, for the table and ``--only``.
        shape: of its input, in words.
        dtype: of its numbers.
        kernels: those of the ``.cu`` files that it launches, in order. Empty where all are CuPy's or cuBLAS's.
        moves: bytes of every array that it cannot but read or write, by the array's name. Their sum is the least bytes.
        inputs: makes random arrays on the active device, others at every call.
        bind: takes these arrays, on any device, and makes what the call needs that is not to be timed; returns the
            call, which returns an array or several.
        tolerance: how far its values may be from the CPU's, in ulps of the largest number of each array.
        flops: multiplications and additions, where they may take longer than the bytes.
        detail: what of its size is not in ``shape``.
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
        """Shape and detail."""
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
    """Of an array."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def by(*sizes: int) -> str:
    """Return a shape in words."""
    return "x".join(map(str, sizes))
