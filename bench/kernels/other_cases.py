"""The cases over matrices and vectors: batch normalization, softmax, dropout, ReLU, optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend import random, xp
from backend.types import Array
from bench.kernels.case import Call, KernelCase, by, centered, nbytes
from kernels.activations import relu
from kernels.batch_norm import batch_norm, normalize
from kernels.batch_norm_backward import normalize_backward, normalize_backward_fixed
from kernels.batch_statistics import Moments, batch_statistics, in_ranges, join
from kernels.core.dtypes import acc_dtype
from kernels.dropout import dropout_mask
from kernels.masking import masked
from kernels.softmax import is_one_launch, softmax, softmax_cross_entropy, softmax_cross_entropy_backward
from training.optim.optimizers import SGD, Adam, Momentum

Matrix = tuple[int, int]

NORMALIZED: tuple[Matrix, ...] = ((32 * 32 * 32, 64), (128 * 28 * 28, 16), (64 * 112 * 112, 64))
"""Pixels by channels of the images that ``bench.kernels.window_cases`` has."""
TINY_NORMALIZED: tuple[Matrix, ...] = ((37, 5),)

SCORES: tuple[Matrix, ...] = ((128, 10), (128, 1000), (8192, 1000), (1024, 50257))
TINY_SCORES: tuple[Matrix, ...] = ((5, 7), (2, 1100), (600, 7))

NUMBERS = (128 * 512, 32 * 64 * 32 * 32)
TINY_NUMBERS = (1001,)

PARAMETERS = (1 << 20, 25_600_000)  # the latter are about as many as in a ResNet-50
TINY_PARAMETERS = (1001,)

EPSILON = 1e-7


def cases(dtype: str, tiny: bool) -> Iterator[KernelCase]:
    """Yield all cases for one dtype, on realistic or tiny shapes."""
    for shape in TINY_NORMALIZED if tiny else NORMALIZED:
        yield from _batch_norm(shape, dtype)
    for shape in TINY_SCORES if tiny else SCORES:
        yield _softmax(shape, dtype)
        yield from _cross_entropy(shape, dtype, "indices")
        yield from _cross_entropy(shape, dtype, "soft targets")
    for count in TINY_NUMBERS if tiny else NUMBERS:
        if dtype == "float32":  # masks do not depend on the dtype
            yield _dropout(count)
        yield _relu(count, dtype)
        yield _masked(count, dtype)
    for count in TINY_PARAMETERS if tiny else PARAMETERS:
        for optimizer in (SGD, Momentum, Adam):
            yield _update(optimizer, count, dtype)


def _batch_norm(shape: Matrix, dtype: str) -> Iterator[KernelCase]:
    matrix, vector = nbytes(shape, dtype), nbytes(shape[1:], dtype)
    sums_dtype = acc_dtype(dtype)
    sums = nbytes(shape[1:], sums_dtype)

    def rows() -> tuple[Any, ...]:  # around 1/2: a mean of nearly 0 would be mostly rounding error
        return (random.uniform(shape, dtype),)

    def with_parameters() -> tuple[Any, ...]:
        return *rows(), centered(shape[1:], dtype), centered(shape[1:], dtype)

    def with_gradients() -> tuple[Any, ...]:
        return *rows(), centered(shape, dtype), centered(shape[1:], dtype)

    def bind_statistics(x: Array) -> Call:
        return lambda: batch_statistics(x)

    def bind_normalize(x: Array, gamma: Array, beta: Array) -> Call:
        mean, variance = batch_statistics(x)
        return lambda: normalize(x, mean, variance, gamma, beta, EPSILON)

    def bind_forward(x: Array, gamma: Array, beta: Array) -> Call:
        running = xp.zeros(shape[1:], sums_dtype), xp.ones(shape[1:], sums_dtype)
        return lambda: batch_norm(x, gamma, beta, *running, EPSILON, 0.9)[:3]

    def bind_added(x: Array, gamma: Array, beta: Array) -> Call:
        running, bypass = (xp.zeros(shape[1:], sums_dtype), xp.ones(shape[1:], sums_dtype)), x * 2
        return lambda: batch_norm(x, gamma, beta, *running, EPSILON, 0.9, True, bypass)[:3]

    def bind_backward(x: Array, dy: Array, gamma: Array) -> Call:
        mean, variance = batch_statistics(x)
        inverse = 1 / (variance + EPSILON) ** 0.5
        return lambda: normalize_backward(dy, x, mean, inverse, gamma)

    def bind_fixed(x: Array, dy: Array, gamma: Array) -> Call:
        mean, variance = batch_statistics(x)
        inverse = 1 / (variance + EPSILON) ** 0.5
        return lambda: normalize_backward_fixed(dy, x, mean, inverse, gamma)[1:]

    yield KernelCase(
        "batch norm statistics", by(*shape), dtype, ("batch_norm_moments", "batch_norm_statistics"),
        {"x": matrix, "mean": sums, "variance": sums}, rows, bind_statistics, tolerance=64,
    )  # fmt: skip
    if dtype == sums_dtype:  # others' sums are as those of float32
        yield _ranges(shape, dtype)
    yield KernelCase(
        "batch norm normalize", by(*shape), dtype, ("batch_norm_normalize",),
        {
            "x": matrix, "mean": sums, "variance": sums, "gamma": vector, "beta": vector,
            "y": matrix, "inverse": sums,
        },
        with_parameters, bind_normalize, tolerance=64,
    )  # fmt: skip
    forward = {  # every number of y depends on all of x, so that x is read twice
        "x, for the statistics": matrix, "x": matrix, "gamma": vector, "beta": vector, "y": matrix, "mean": sums,
        "inverse": sums, "running mean": 2 * sums, "running variance": 2 * sums,
    }  # fmt: skip
    yield KernelCase(
        "batch norm", by(*shape), dtype, ("batch_norm_moments", "batch_norm_forward"), forward, with_parameters,
        bind_forward, tolerance=64,
    )  # fmt: skip
    yield KernelCase(
        "batch norm, sum, ReLU", by(*shape), dtype, ("batch_norm_moments", "batch_norm_forward_added"),
        {**forward, "bypass": matrix, "positive": nbytes(shape, bool)}, with_parameters, bind_added, tolerance=64,
    )  # fmt: skip
    yield KernelCase(
        "batch norm's parameters", by(*shape), dtype, ("batch_norm_products", "batch_norm_parameter_gradients"),
        {"x": matrix, "dy": matrix, "mean": sums, "inverse": sums, "dgamma": sums, "dbeta": sums}, with_gradients,
        bind_fixed, tolerance=64,
    )  # fmt: skip
    yield KernelCase(
        "batch norm backward", by(*shape), dtype, ("batch_norm_products", "batch_norm_backward"),
        {  # every number of dx depends on sums of all dy and x, so that these are read twice
            "x, for the sums": matrix, "dy, for the sums": matrix, "mean": sums, "inverse": sums, "gamma": vector,
            "dgamma": sums, "dbeta": sums, "x": matrix, "dy": matrix, "dx": matrix,
        },
        with_gradients, bind_backward, tolerance=64,
    )  # fmt: skip


def _ranges(shape: Matrix, dtype: str) -> KernelCase:
    """What a convolution has measured of such a matrix, by 128 rows, for a pass that reads fewer ranges."""
    rows, channels = -(-shape[0] // 128) * 128, shape[1]
    cut, together = in_ranges(rows, channels, 128), 16
    given, joined = (cut.ranges, channels), -(-cut.ranges // together)

    def bind(means: Array, squares: Array) -> Call:
        return lambda: join(Moments(means, squares, rows, cut), together)[:2]

    return KernelCase(
        "batch norm ranges", by(*given), dtype, ("batch_norm_join",),
        {"ranges": 2 * nbytes(given, dtype), "joined": 2 * nbytes((joined, channels), dtype)},
        lambda: (random.uniform(given, dtype), random.uniform(given, dtype)), bind, tolerance=64,
    )  # fmt: skip


def _softmax(shape: Matrix, dtype: str) -> KernelCase:
    def bind(x: Array) -> Call:
        return lambda: softmax(x)

    matrix = nbytes(shape, dtype)
    return KernelCase(
        "softmax", by(*shape), dtype, ("softmax",), {"x": matrix, "y": matrix},
        lambda: (centered(shape, dtype),), bind, tolerance=16,
    )  # fmt: skip


def _cross_entropy(shape: Matrix, dtype: str, labels: str) -> Iterator[KernelCase]:
    rows, classes = shape
    wide, kernel = acc_dtype(dtype).name, labels.replace(" ", "_")
    matrix, one = nbytes(shape, dtype), nbytes((), wide)
    of_labels = nbytes((rows,), "int32") if labels == "indices" else nbytes(shape, wide)

    def inputs() -> tuple[Any, ...]:
        if labels == "indices":
            t = (random.bits(rows) % classes).astype("int32")
        else:
            t = random.uniform(shape, wide)
            t /= t.sum(axis=1, keepdims=True)
        return centered(shape, dtype), t, xp.ones((), wide)

    def bind(x: Array, t: Array, scale: Any) -> Call:
        return lambda: softmax_cross_entropy(x, t)

    def bind_backward(x: Array, t: Array, scale: Any) -> Call:
        y = softmax(x)
        return lambda: softmax_cross_entropy_backward(y, t, scale)

    yield KernelCase(
        f"cross-entropy of {labels}", by(*shape), dtype,
        (f"cross_entropy_of_{kernel}", *([] if is_one_launch(*shape) else ["mean_loss"])),
        {"x": matrix, "labels": of_labels, "y": matrix, "loss": one}, inputs, bind, tolerance=32,
    )  # fmt: skip
    yield KernelCase(
        f"cross-entropy of {labels} backward", by(*shape), dtype, (f"cross_entropy_backward_of_{kernel}",),
        {"y": matrix, "labels": of_labels, "scale": one, "dx": matrix}, inputs, bind_backward, tolerance=32,
    )  # fmt: skip


def _dropout(count: int) -> KernelCase:
    def bind() -> Call:
        random.seed(0)  # masks are drawn from the current generator, which starts alike on every device
        return lambda: dropout_mask((count,), 0.5)

    return KernelCase(
        "dropout mask", str(count), "bool", ("dropout_mask",), {"mask": nbytes((count,), bool)}, lambda: (), bind
    )


def _relu(count: int, dtype: str) -> KernelCase:
    def bind(x: Array) -> Call:
        return lambda: relu(x)

    numbers = nbytes((count,), dtype)
    return KernelCase(
        "relu", str(count), dtype, (), {"x": numbers, "y": numbers, "positive": nbytes((count,), bool)},
        lambda: (centered((count,), dtype),), bind,
    )  # fmt: skip


def _masked(count: int, dtype: str) -> KernelCase:
    def bind(dy: Array, bits: Any) -> Call:
        positive = bits % 2 == 0
        return lambda: masked(dy, positive)

    numbers = nbytes((count,), dtype)
    return KernelCase(
        "relu backward", str(count), dtype, (), {"dy": numbers, "positive": nbytes((count,), bool), "dx": numbers},
        lambda: (centered((count,), dtype), random.bits(count)), bind,
    )  # fmt: skip


def _update(kind: Any, count: int, dtype: str) -> KernelCase:
    def bind(parameter: Any, gradient: Array) -> Call:
        optimizer = kind()

        def update() -> Any:
            optimizer.update({"W": parameter}, {"W": gradient})
            return parameter

        return update

    numbers, wide = nbytes((count,), dtype), nbytes((count,), acc_dtype(dtype))
    slots = [*kind.slots, *(["master"] if dtype == "float16" else [])]
    return KernelCase(
        f"{kind.__name__} update", str(count), dtype, (),
        {
            "parameter, read": numbers, "gradient": numbers, "parameter, written": numbers,
            **{f"{slot}, {how}": wide for slot in slots for how in ("read", "written")},
        },
        lambda: (centered((count,), dtype), centered((count,), dtype)), bind, tolerance=4,
    )  # fmt: skip
