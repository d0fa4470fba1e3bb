"""The cases of layer normalization, over the rows of a transformer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend.types import Array
from bench.kernels.case import Call, KernelCase, by, centered, nbytes
from bench.kernels.sum_cases import is_one_stage
from kernels.core.dtypes import acc_dtype
from kernels.layer_norm import layer_norm, layer_norm_backward

Matrix = tuple[int, int]

ROWS: tuple[Matrix, ...] = ((128 * 64, 192), (64 * 256, 768))
"""Places by numbers of each: of small pictures, and of text."""
TINY_ROWS: tuple[Matrix, ...] = ((37, 5),)

EPSILON = 1e-5


def cases(dtype: str, tiny: bool) -> Iterator[KernelCase]:
    """Yield all cases for one dtype, on realistic or tiny shapes."""
    for shape in TINY_ROWS if tiny else ROWS:
        yield _forward(shape, dtype)
        yield _backward(shape, dtype)


def _forward(shape: Matrix, dtype: str) -> KernelCase:
    def inputs() -> tuple[Any, ...]:
        return centered(shape, dtype), centered(shape[1:], dtype), centered(shape[1:], dtype)

    def bind(x: Array, gamma: Array, beta: Array) -> Call:
        return lambda: layer_norm(x, gamma, beta, EPSILON)

    rows, vector, wide = nbytes(shape, dtype), nbytes(shape[1:], dtype), acc_dtype(dtype)
    return KernelCase(
        "layer norm", by(*shape), dtype, ("layer_norm",),
        {
            "x": rows, "gamma": vector, "beta": vector, "y": rows, "normalized": nbytes(shape, wide),
            "inverse": nbytes(shape[:1], wide),
        },
        inputs, bind, tolerance=64,
    )  # fmt: skip


def _backward(shape: Matrix, dtype: str) -> KernelCase:
    def inputs() -> tuple[Any, ...]:
        return *(centered(shape, dtype) for _ in range(2)), *(centered(shape[1:], dtype) for _ in range(2))

    def bind(dy: Array, x: Array, gamma: Array, beta: Array) -> Call:
        _, normalized, inverse = layer_norm(x, gamma, beta, EPSILON)
        return lambda: layer_norm_backward(dy, normalized, inverse, gamma)

    rows, wide = nbytes(shape, dtype), acc_dtype(dtype)
    normalized, sums = nbytes(shape, wide), nbytes(shape[1:], wide)
    second = () if is_one_stage(1, *shape, wide) else ("sum_partials",)
    return KernelCase(
        "layer norm backward", by(*shape), dtype,
        ("layer_norm_backward", "layer_norm_products", *second, "sum_ranges", *second),
        {
            "dy": rows, "normalized": normalized, "inverse": nbytes(shape[:1], wide),
            "gamma": nbytes(shape[1:], dtype), "dx": rows, "dgamma": sums, "dbeta": sums,
        },
        inputs, bind, tolerance=256,
    )  # fmt: skip
