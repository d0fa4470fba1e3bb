"""The cases of depthwise convolution: a filter for each channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend.types import Array
from bench.kernels.case import Call, KernelCase, centered, nbytes
from bench.kernels.sum_cases import is_one_stage
from bench.kernels.window_cases import Images, pixels
from kernels.convolution import convolution, convolution_backward_input, convolution_backward_weight
from kernels.core.window import Window

IMAGES = (Images((128, 96, 32, 32), Window(3, 1, 1)), Images((64, 192, 28, 28), Window(3, 2, 1)))
TINY_IMAGES = (Images((2, 5, 5, 4), Window(3, 1, 1)),)


def cases(dtype: str, tiny: bool) -> Iterator[KernelCase]:
    """Yield all cases for one dtype, on realistic or tiny shapes."""
    for size in TINY_IMAGES if tiny else IMAGES:
        yield _forward(size, dtype)
        yield _backward_input(size, dtype)
        yield _backward_weight(size, dtype)


def _weight(size: Images) -> tuple[int, int, int, int]:
    return size.shape[1], 1, size.window.kernel[0], size.window.kernel[1]


def _moves(size: Images, dtype: str) -> tuple[int, int, int]:
    """Return the bytes of the images, the output and the filters."""
    return nbytes(size.shape, dtype), nbytes(size.outputs, dtype), nbytes(_weight(size), dtype)


def _forward(size: Images, dtype: str) -> KernelCase:
    def inputs() -> tuple[Any, ...]:
        return pixels(size.shape, dtype), centered(_weight(size), dtype)

    def bind(x: Array, weight: Array) -> Call:
        return lambda: convolution(x, weight, None, size.window, size.shape[1])

    x, y, weight = _moves(size, dtype)
    moves = {"x": x, "weight": weight, "y": y}
    return KernelCase("depthwise", str(size), dtype, ("depthwise",), moves, inputs, bind, tolerance=16)


def _backward_input(size: Images, dtype: str) -> KernelCase:
    def inputs() -> tuple[Any, ...]:
        return pixels(size.outputs, dtype), centered(_weight(size), dtype)

    def bind(dy: Array, weight: Array) -> Call:
        return lambda: convolution_backward_input(dy, weight, size.shape, size.window, size.shape[1])

    dx, dy, weight = _moves(size, dtype)
    return KernelCase(
        "depthwise's input", str(size), dtype, ("depthwise_backward_input",), {"dy": dy, "weight": weight, "dx": dx},
        inputs, bind, tolerance=16,
    )  # fmt: skip


def _backward_weight(size: Images, dtype: str) -> KernelCase:
    def inputs() -> tuple[Any, ...]:
        return pixels(size.shape, dtype), pixels(size.outputs, dtype)

    def bind(x: Array, dy: Array) -> Call:
        return lambda: convolution_backward_weight(x, dy, _weight(size), size.window, size.shape[1])

    x, dy, weight = _moves(size, dtype)
    rows, channels = size.columns[0], size.shape[1]
    one_stage = is_one_stage(size.columns[1] // channels, rows, channels, dtype)
    return KernelCase(
        "depthwise's weight", str(size), dtype,
        ("depthwise_backward_weight",) if one_stage else ("depthwise_backward_weight", "sum_partials"),
        {"x": x, "dy": dy, "dweight": weight}, inputs, bind, tolerance=256,
    )  # fmt: skip
