"""The cases of attention: of a vision transformer's heads, and of a longer text's, whose queries see no later key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend.types import Array
from bench.kernels.case import Call, KernelCase, by, centered, nbytes
from kernels.attention import attention, attention_backward
from kernels.core.dtypes import acc_dtype

Size = tuple[tuple[int, int, int, int], bool]

SIZES: tuple[Size, ...] = (((128, 3, 64, 64), False), ((8, 12, 1024, 64), True))
"""Shapes (N, heads, T, D), and whether they are causal."""
TINY_SIZES: tuple[Size, ...] = (((2, 3, 37, 5), False), ((1, 2, 37, 5), True))


def cases(dtype: str, tiny: bool) -> Iterator[KernelCase]:
    """Yield all cases for one dtype, on realistic or tiny shapes."""
    for shape, causal in TINY_SIZES if tiny else SIZES:
        yield _forward(shape, causal, dtype)
        yield _backward(shape, causal, dtype)


def _forward(shape: tuple[int, ...], causal: bool, dtype: str) -> KernelCase:
    def inputs() -> tuple[Any, ...]:
        return tuple(centered(shape, dtype) for _ in range(3))

    def bind(q: Array, k: Array, v: Array) -> Call:
        return lambda: attention(q, k, v, causal)

    moved = {**_arrays(shape, dtype, "q", "k", "v", "y"), **_sums(shape, dtype)}
    return KernelCase(
        "attention", by(*shape), dtype, ("attention",), moved, inputs, bind, tolerance=64,
        flops=_products(shape, causal, 2), detail="causal" if causal else "",
    )  # fmt: skip


def _backward(shape: tuple[int, ...], causal: bool, dtype: str) -> KernelCase:
    def inputs() -> tuple[Any, ...]:
        return tuple(centered(shape, dtype) for _ in range(4))

    def bind(dy: Array, q: Array, k: Array, v: Array) -> Call:
        y, log_sums = attention(q, k, v, causal)
        return lambda: attention_backward(dy, q, k, v, y, log_sums, causal)

    moved = {**_arrays(shape, dtype, "dy", "q", "k", "v", "y", "dq", "dk", "dv"), **_sums(shape, dtype)}
    return KernelCase(
        "attention backward", by(*shape), dtype, ("attention_backward_queries", "attention_backward_keys"), moved,
        inputs, bind, tolerance=256, flops=_products(shape, causal, 5), detail="causal" if causal else "",
    )  # fmt: skip


def _arrays(shape: tuple[int, ...], dtype: str, *names: str) -> dict[str, int]:
    return dict.fromkeys(names, nbytes(shape, dtype))


def _sums(shape: tuple[int, ...], dtype: str) -> dict[str, int]:
    return {"log_sums": nbytes(shape[:3], acc_dtype(dtype))}


def _products(shape: tuple[int, ...], causal: bool, count: int) -> int:
    """Return the operations of so many products of scores: half as many where half of the scores are not seen."""
    n, heads, length, size = shape
    return 2 * count * n * heads * length * length * size // (2 if causal else 1)
