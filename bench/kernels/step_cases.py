"""The cases of what stands beside a step's products: bias and ReLU of a fully connected layer, dropout, the totals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend import random, xp
from backend.types import Array
from bench.kernels.case import Call, KernelCase, by, centered, nbytes
from kernels.affine import add_bias, bias_gradient
from kernels.core.dtypes import acc_dtype
from kernels.dropout import dropout
from kernels.totals import add_to_totals

Matrix = tuple[int, int]

OUTPUTS: tuple[Matrix, ...] = ((128, 100), (4096, 1024))
TINY_OUTPUTS: tuple[Matrix, ...] = ((37, 45),)

NUMBERS = (128 * 512, 32 * 64 * 32 * 32)
TINY_NUMBERS = (1001,)

SCORES: tuple[Matrix, ...] = ((128, 10), (128, 1000))
TINY_SCORES: tuple[Matrix, ...] = ((300, 7),)


def cases(dtype: str, tiny: bool) -> Iterator[KernelCase]:
    """Yield all cases for one dtype, on realistic or tiny shapes."""
    for shape in TINY_OUTPUTS if tiny else OUTPUTS:
        yield _bias(shape, dtype)
        yield _bias_gradient(shape, dtype)
    for count in TINY_NUMBERS if tiny else NUMBERS:
        yield _dropout(count, dtype)
    for shape in TINY_SCORES if tiny else SCORES:
        yield _totals(shape, dtype)


def _bias(shape: Matrix, dtype: str) -> KernelCase:
    def bind(product: Array, bias: Array) -> Call:
        y = product.copy()  # changed in place
        return lambda: (add_bias(y, bias, relu=True), y)

    matrix = nbytes(shape, dtype)
    return KernelCase(
        "bias and ReLU", by(*shape), dtype, ("add_bias",),
        {"product": matrix, "bias": nbytes(shape[1:], dtype), "y": matrix, "positive": nbytes(shape, bool)},
        lambda: (centered(shape, dtype), centered(shape[1:], dtype)), bind,
    )  # fmt: skip


def _bias_gradient(shape: Matrix, dtype: str) -> KernelCase:
    def bind(dy: Array, bits: Any) -> Call:
        positive, dbias = (bits % 2 == 0).reshape(shape), xp.empty(shape[1], dtype)
        return lambda: (bias_gradient(dy, positive, dbias), dbias)

    matrix = nbytes(shape, dtype)
    return KernelCase(
        "gradient of bias and ReLU", by(*shape), dtype, ("bias_gradient",),
        {"dy": matrix, "positive": nbytes(shape, bool), "dx": matrix, "dbias": nbytes(shape[1:], dtype)},
        lambda: (centered(shape, dtype), random.bits(shape[0] * shape[1])), bind, tolerance=256,
    )  # fmt: skip


def _dropout(count: int, dtype: str) -> KernelCase:
    def bind(x: Array) -> Call:
        random.seed(0)  # masks are drawn from the current generator, which starts alike on every device
        return lambda: dropout(x, 0.5)

    numbers = nbytes((count,), dtype)
    return KernelCase(
        "dropout", str(count), dtype, ("dropout",), {"x": numbers, "y": numbers, "mask": nbytes((count,), bool)},
        lambda: (centered((count,), dtype),), bind,
    )  # fmt: skip


def _totals(shape: Matrix, dtype: str) -> KernelCase:
    (rows, classes), wide = shape, acc_dtype(dtype)

    def bind(y: Array, bits: Any) -> Call:
        totals, loss, labels = xp.zeros(3, "float64"), xp.ones((), wide), (bits % classes).astype("int32")

        def add() -> Array:
            add_to_totals(totals, loss, y, labels)
            return totals

        return add

    moves = {"y": nbytes(shape, dtype), "labels": nbytes((rows,), "int32"), "loss": nbytes((), wide)}
    return KernelCase(
        "totals of an epoch", by(*shape), dtype, ("add_to_totals",), {**moves, "totals": 2 * nbytes((3,), "float64")},
        lambda: (centered(shape, dtype), random.bits(rows)), bind,
    )  # fmt: skip
