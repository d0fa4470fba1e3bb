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
        yield _lstm_backward(size, dtype)
        yield _step("gru", gru_step, 3, 2, size, dtype)
        yield _gru_backward(size, dtype)


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


def _lstm_backward(size: Size, dtype: str) -> KernelCase:
    wide = _wide(size, 4)

    def bind(dout: Array, dh: Array, dc: Array, gates: Array, before: Array, squashed: Array) -> Call:
        going_on, dsums = dc.copy(), xp.empty(wide, dtype)  # the first is changed in place

        def call() -> tuple[Array, ...]:
            lstm_step_backward(dout, dh, going_on, gates, before, squashed, dsums)
            return going_on, dsums

        return call

    moved = {"gates and dsums": 2 * nbytes(wide, dtype), "of units": 6 * nbytes(size, dtype)}
    return KernelCase(
        "lstm step backward", by(*size), dtype, ("lstm_backward",), moved,
        lambda: tuple(centered(wide if place == 3 else size, dtype) for place in range(6)), bind, tolerance=64,
    )  # fmt: skip


def _gru_backward(size: Size, dtype: str) -> KernelCase:
    wide = _wide(size, 3)

    def bind(dout: Array, dproduct: Array, carried: Array, gates: Array, products: Array, before: Array) -> Call:
        going_on, sums = carried.copy(), [xp.empty(wide, dtype) for _ in range(2)]  # the first is changed in place

        def call() -> tuple[Array, ...]:
            gru_step_backward(dout, dproduct, going_on, gates, products, before, *sums)
            return going_on, *sums

        return call

    moved = {"gates and sums": 3 * nbytes(wide, dtype), "of units": 6 * nbytes(size, dtype)}
    return KernelCase(
        "gru step backward", by(*size), dtype, ("gru_backward",), moved,
        lambda: tuple(centered(wide if place == 3 else size, dtype) for place in range(6)), bind, tolerance=64,
    )  # fmt: skip


def _wide(size: Size, gates: int) -> Size:
    return size[0], gates * size[1]
