"""The cases of embeddings: rows by their indices, and the sums of gradients by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend import random, xp
from backend.types import Array
from bench.kernels.case import Call, KernelCase, by, centered, nbytes
from kernels.embedding import embedding, embedding_backward

SIZES = ((32 * 50, 100, 64), (64 * 256, 50257, 768))
"""Places, rows and numbers of a row: of characters, and of parts of words."""
TINY_SIZES = ((37, 11, 5),)


def cases(dtype: str, tiny: bool) -> Iterator[KernelCase]:
    """Yield all cases for one dtype, on realistic or tiny shapes."""
    for places, count, size in TINY_SIZES if tiny else SIZES:
        yield _forward(places, count, size, dtype)
        yield _backward(places, count, size, dtype)


def _indices(places: int, count: int) -> Array:
    return (random.uniform((places,), "float64") * count).astype("int32")


def _forward(places: int, count: int, size: int, dtype: str) -> KernelCase:
    rows = nbytes((places, size), dtype)

    def inputs() -> tuple[Any, ...]:
        return centered((count, size), dtype), _indices(places, count)

    def bind(weight: Array, indices: Array) -> Call:
        return lambda: embedding(weight, indices)

    return KernelCase(
        "embedding", by(places, size), dtype, ("rows_of_indices", "gather_rows"),
        {"rows of the weight": rows, "indices": 4 * places, "y": rows}, inputs, bind, detail=f"{count} rows",
    )  # fmt: skip


def _backward(places: int, count: int, size: int, dtype: str) -> KernelCase:
    def inputs() -> tuple[Any, ...]:
        return centered((places, size), dtype), _indices(places, count)

    def bind(dout: Array, indices: Array) -> Call:
        out = xp.empty((count, size), dtype)
        return lambda: embedding_backward(dout, indices, out)

    return KernelCase(
        "embedding backward", by(places, size), dtype, ("rows_of_indices", "sort_by_row", "sum_sorted"),
        {"dout": nbytes((places, size), dtype), "indices": 4 * places, "dweight": nbytes((count, size), dtype)},
        inputs, bind, detail=f"{count} rows",
    )  # fmt: skip
