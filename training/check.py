"""Does this GPU compute what the CPU computes? Every operation on both, and a training run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy

import layers
from backend import asarray, asnumpy, random, use
from kernels.catalog import DTYPES
from kernels.col2im import col2im
from kernels.im2col import im2col
from kernels.max_pooling import max_pool, max_pool_backward
from kernels.window import Window
from training import optimizers
from training.precision import LossScaler

Arrays = dict[str, Any]

GEOMETRIES: tuple[tuple[tuple[int, int, int, int], Window], ...] = (
    ((2, 1, 9, 9), Window(3, 1, 1)),
    ((3, 16, 14, 14), Window(3, 1, 1)),
    ((2, 5, 11, 8), Window((2, 3), (3, 2), (1, 0, 2, 1), (2, 1))),
    ((1, 64, 6, 6), Window(2, 2)),
    ((4, 3, 7, 7), Window(1)),
    ((2, 4, 5, 5), Window(5, 1, 2)),
)


@dataclass(frozen=True)
class Case:
    """One operation on one geometry: what it makes on the active device, and how far that may be off.

    ``ulps`` counts units in the last place of the largest number of each array; 0 asks for the same bits.
    """

    operation: str
    make: Callable[[str], Arrays]
    ulps: float = 0.0


@dataclass(frozen=True)
class Row:
    """What all cases of an operation came to. ``error`` and ``tolerance``, in ulps, are those of the worst."""

    operation: str
    cases: int
    error: float
    tolerance: float
    worst: str

    @property
    def passed(self) -> bool:
        """Whether every case is within its tolerance."""
        return self.error <= self.tolerance


def compare(device: str, dtypes: tuple[str, ...] = DTYPES) -> Iterator[Row]:
    """Runs every operation on ``device`` and on the CPU, from the same numbers; yields a row as each is done."""
    by_operation: dict[str, list[Case]] = {}
    for case in cases():
        by_operation.setdefault(case.operation, []).append(case)
    for operation, own in by_operation.items():
        measured = [
            (*_measure(case, dtype, device), case.ulps, dtype) for case in own for dtype in dtypes
        ]  # (error, array's name, tolerance, dtype)
        error, name, tolerance, dtype = max(measured, key=lambda m: (m[0] > m[2], m[0] / max(m[2], 1)))
        yield Row(operation, len(measured), error, tolerance, f"{name}, {dtype}")


def _measure(case: Case, dtype: str, device: str) -> tuple[float, str]:
    """The largest error of a case in ulps, and the array that has it."""
    results = []
    for place in ("cpu", device):
        with use(place):
            random.seed(1)
            results.append({name: asnumpy(array) for name, array in case.make(dtype).items()})
    expected, actual = results
    return max((ulps(actual[name], expected[name]), name) for name in expected)


def ulps(actual: numpy.ndarray, expected: numpy.ndarray) -> float:
    """The largest difference of two arrays, in ulps of the largest finite number expected; infinite where shapes,
    dtypes, NaNs or infinities differ.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return numpy.inf
    if numpy.array_equal(actual, expected, equal_nan=expected.dtype.kind == "f"):
        return 0.0
    if expected.dtype.kind != "f":
        return numpy.inf
    finite = numpy.isfinite(expected)
    if not numpy.array_equal(finite, numpy.isfinite(actual)):
        return numpy.inf
    difference = numpy.abs(actual[finite].astype("float64") - expected[finite].astype("float64")).max(initial=0.0)
    largest = float(numpy.abs(expected[finite]).max(initial=0.0))
    unit = float(numpy.finfo(expected.dtype).eps) * max(largest, float(numpy.finfo(expected.dtype).tiny))
    return float(difference) / unit


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0, ties: bool = False) -> Any:
    """Numbers around 0 on the active device, the same on every device; with ``ties`` many of them are equal."""
    values = numpy.random.default_rng(seed).standard_normal(shape)
    return asarray((numpy.round(values) if ties else values).astype(dtype))


def cases() -> Iterator[Case]:
    """Every operation over its geometries, forward and backward."""
    yield Case("random numbers", lambda dtype: {"bits": random.bits(1001), "uniform": random.uniform(999, dtype)})
    for shape, window in GEOMETRIES:
        yield from _window_cases(shape, window)
    for name, make, input_shape, tolerance in _layers():
        yield Case(name, partial(_layer, make, input_shape), tolerance)
    for one_hot in (False, True):
        yield Case("softmax cross-entropy", partial(_loss, one_hot), 32)
    for name in optimizers.NAMES:
        yield Case(f"optimizer {name}", partial(_update, name), 4)
        yield Case(f"{name} under a loss scale", partial(_scaled_update, name), 8)


def _window_cases(shape: tuple[int, int, int, int], window: Window) -> Iterator[Case]:
    n, c = shape[:2]
    outputs, taps = window.over(shape[2:]).output, window.kernel[0] * window.kernel[1]

    def to_columns(order: str, dtype: str) -> Arrays:
        return {"columns": im2col(numbers(shape, dtype), window, order)}

    def to_images(order: str, method: Literal["gather", "scatter"], dtype: str) -> Arrays:
        columns = numbers((n * outputs[0] * outputs[1], c * taps), dtype)
        return {"image": col2im(columns, shape, window, order, method)}

    for order in ("CHW", "HWC"):
        yield Case("im2col", partial(to_columns, order))
        yield Case("col2im, gather", partial(to_images, order, "gather"))
        yield Case("col2im, scatter", partial(to_images, order, "scatter"), 2 * taps)

    def pool(dtype: str) -> Arrays:
        y, argmax = max_pool(numbers(shape, dtype, ties=True), window)
        dx = max_pool_backward(numbers(y.shape, dtype, 1), argmax, shape, window)
        return {"y": y, "argmax": argmax, "dx": dx}

    if all(pad <= kernel // 2 for pad, kernel in zip(window.over(shape[2:]).pads[::2], window.kernel, strict=True)):
        yield Case("max pooling", pool, 2)

    def convolve(groups: int, dtype: str) -> Arrays:
        filters = numbers((2 * c, c // groups, *window.kernel), dtype, 1)
        layer = layers.Convolution(filters, numbers((2 * c,), dtype, 2), groups=groups)
        layer.window = window
        return run_layer(layer, numbers(shape, dtype))

    for groups in {1, c}:
        name = "convolution" if groups == 1 else "convolution, depthwise"
        terms = max(taps * c, n * outputs[0] * outputs[1])
        yield Case(name, partial(convolve, groups), 2 * terms**0.5 + 8)


def _layers() -> Iterator[tuple[str, Callable[[str], Any], tuple[int, ...], float]]:
    """(operation, layer by dtype, input's shape, tolerance in ulps)."""
    image, rows = (3, 8, 7, 6), (33, 40)
    yield "affine", lambda dtype: layers.Affine(numbers((40, 9), dtype, 1), numbers((9,), dtype, 2)), rows, 32
    yield "relu", lambda dtype: layers.Relu(), image, 0
    yield "leaky relu", lambda dtype: layers.LeakyRelu(), image, 1
    yield "sigmoid", lambda dtype: layers.Sigmoid(), image, 16
    yield "tanh", lambda dtype: layers.Tanh(), image, 16
    yield "gelu", lambda dtype: layers.Gelu(), image, 16
    yield "softmax", lambda dtype: layers.Softmax(), rows, 16
    yield "dropout", lambda dtype: layers.Dropout(0.4), image, 0
    yield "average pooling", lambda dtype: layers.AveragePooling(3, 2, 2, (1, 0)), image, 8
    yield "global average pooling", lambda dtype: layers.GlobalAveragePooling(), image, 16
    yield "batch normalization", partial(_normalization, layers.BatchNormalization, 8), image, 64
    yield "batch normalization", partial(_normalization, layers.BatchNormalization, 3), (500, 3), 64
    yield "layer normalization", partial(_normalization, layers.LayerNormalization, 40), rows, 64


def _normalization(kind: Any, size: int, dtype: str) -> Any:
    return kind(numbers((size,), dtype, 1), numbers((size,), dtype, 2))


def _layer(make: Callable[[str], Any], shape: tuple[int, ...], dtype: str) -> Arrays:
    return run_layer(make(dtype), numbers(shape, dtype))


def run_layer(layer: Any, x: Any) -> Arrays:
    """Forward, then backward of numbers around 0: output, input gradient and parameter gradients by name."""
    y = layer.forward(x)
    dx = layer.backward(numbers(y.shape, y.dtype.name, 3))
    return {"y": y, "dx": dx, **{f"d{name}": gradient for name, gradient in layer.grads.items()}}


def _loss(one_hot: bool, dtype: str) -> Arrays:
    labels = numpy.arange(50, dtype="int32") % 12
    t = asarray(numpy.eye(12, dtype=dtype)[labels] if one_hot else labels)
    loss = layers.SoftmaxWithLoss()
    value = loss.forward(numbers((50, 12), dtype) * 4, t)
    return {"loss": value, "y": loss.y, "dx": loss.backward()}


def _update(name: str, dtype: str) -> Arrays:
    optimizer = optimizers.by_name(name, 0.01, 0.1)
    params = {"W": numbers((37, 5), dtype)}
    for step in range(5):
        optimizer.update(params, {"W": numbers((37, 5), dtype, step + 1)})
    return params


def _scaled_update(name: str, dtype: str) -> Arrays:
    """Four steps under a loss scale that start with one which is skipped; the scale and the counts must agree, too."""
    optimizer, scaler = optimizers.by_name(name, 0.01, 0.1), LossScaler(2.0**5)
    params = {"W": numbers((37, 5), dtype)}
    for step in range(5):
        gradient = numbers((37, 5), dtype, step + 1) * float(scaler.read()[0])
        if step == 0:
            gradient[3, 2] = numpy.inf
        scaler.update(optimizer, params, {"W": gradient})
    return params | {"control": scaler.control}
