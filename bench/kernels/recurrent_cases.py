"""The cases of a step of an LSTM and of a GRU, behind their matrix products, and of the way back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend import xp
from backend.types import Array
from bench.kernels.case import Call, KernelCase, by, centered, nbytes
from kernels.gru import gru_step, gru_step_backward
from kernels.lstm import lstm_step, lstm_step_backward

Size = tuple[int, int]

SIZES: tuple[Size, ...] = ((32, 128), (64, 1024))
"""Samples and units."""
TINY_SIZES: tuple[Size, ...] = ((7, 13),)


def cases(dtype: str, tiny: bool) -> Iterator[KernelCase]:
    """Yield all cases for one dtype, on realistic or tiny shapes."""
    for size in TINY_SIZES if tiny else SIZES:
        yield _step("lstm", lstm_step, 4, 3, size, dtype)
        yield _backward("lstm", lstm_step_backward, 4, 1, size, dtype)
        yield _step("gru", gru_step, 3, 2, size, dtype)
        yield _backward("gru", gru_step_backward, 3, 2, size, dtype)


def _step(name: str, step: Any, gates: int, results: int, size: Size, dtype: str) -> KernelCase:
    wide = _wide(size, gates)

    def bind(of_inputs: Array, of_states: Array, before: Array) -> Call:
        written = [xp.empty(wide, dtype), *(xp.empty(size, dtype) for _ in range(results))]

        def call() -> tuple[Array, ...]:
            step(of_inputs, of_states, before, *written)
            return tuple(written)

        return call

    moved = {"sums and gates": 3 * nbytes(wide, dtype), "of units": (1 + results) * nbytes(size, dtype)}
    return KernelCase(
        f"{name} step", by(*size), dtype, (name,), moved,
        lambda: (centered(wide, dtype), centered(wide, dtype), centered(size, dtype)), bind, tolerance=64,
    )  # fmt: skip


def _backward(name: str, step: Any, gates: int, sums: int, size: Size, dtype: str) -> KernelCase:
    wide = _wide(size, gates)

    def bind(dout: Array, later: Array, going_on: Array, kept: Array, one: Array, other: Array) -> Call:
        changed, dsums = going_on.copy(), [xp.empty(wide, dtype) for _ in range(sums)]  # the first is changed in place

        def call() -> tuple[Array, ...]:
            step(dout, later, changed, kept, one, other, *dsums)
            return changed, *dsums

        return call

    moved = {"gates and sums": (1 + sums) * nbytes(wide, dtype), "of units": 6 * nbytes(size, dtype)}
    return KernelCase(
        f"{name} step backward", by(*size), dtype, (f"{name}_backward",), moved,
        lambda: tuple(centered(wide if place == 3 else size, dtype) for place in range(6)), bind, tolerance=64,
    )  # fmt: skip


def _wide(size: Size, gates: int) -> Size:
    return size[0], gates * size[1]
