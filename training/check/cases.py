"""The operations that ``xpnet check`` runs: inputs, and bounds for the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy

import layers
from backend import asarray, asnumpy, random
from backend.types import Array
from kernels.col2im import col2im
from kernels.core.dtypes import acc_dtype
from kernels.core.window import Window
from kernels.im2col import im2col
from training.check.attention_cases import attention_layers
from training.check.bounds import Bound, sum_ulps, ulps
from training.check.inputs import numbers
from training.check.layer_bounds import Bounds, layer_bounds, run_layer
from training.check.loss_bounds import loss_bounds
from training.check.loss_cases import loss_cases
from training.check.sequence_cases import sequence_cases
from training.check.sum_cases import sum_cases
from training.optim import optimizers
from training.optim.clipping import clip_gradients
from training.optim.loss_scaling import LossScaler
from training.optim.update import Update

Results = dict[str, Array]

LR, DECAY = 0.01, 0.1
"""Learning rate and weight decay of the optimizers' cases."""

GEOMETRIES: tuple[tuple[tuple[int, int, int, int], Window], ...] = (
    ((2, 1, 9, 9), Window(3, 1, 1)),
    ((3, 16, 14, 14), Window(3, 1, 1)),
    ((2, 5, 11, 8), Window((2, 3), (3, 2), (1, 0, 2, 1), (2, 1))),
    ((1, 64, 6, 6), Window(2, 2)),
    ((4, 3, 7, 7), Window(1)),
    ((2, 4, 5, 5), Window(5, 1, 2)),
)


@dataclass(frozen=True)
class CheckCase:
    """One operation on one input.

    Attributes:
        operation: its name in the table.
        run: compute the results on the active device, in a dtype; random numbers start at seed 1.
        bounds: compute the bounds of the results on the CPU; None requires the same bits as on the CPU.
    """

    operation: str
    run: Callable[[str], Results]
    bounds: Callable[[str], Bounds] | None = None


def cases() -> Iterator[CheckCase]:
    """Yield every operation, forward and backward, each over several shapes."""
    yield CheckCase("random numbers", lambda dtype: {"bits": random.bits(1001), "uniform": random.uniform(999, dtype)})
    for shape, window in GEOMETRIES:
        yield from _window_cases(shape, window)
    for operation, make, input_shape in (*_layers(), *attention_layers()):
        yield _layer_case(operation, make, input_shape)
        if "normalization" in operation:  # again with ε at least as large as the variance
            yield _layer_case(operation, make, input_shape, scale=2.0**-9)
    yield CheckCase("add, multiply", _arithmetic)
    for make, input_shape in (
        (_with_parameters(layers.Affine, (40, 9), (9,)), (33, 40)),
        (_with_parameters(layers.Convolution, (12, 8, 3, 3), (12,)), (2, 8, 9, 10)),
        (_with_parameters(_winograd, (12, 8, 3, 3), (12,)), (2, 8, 9, 10)),
        (_with_parameters(layers.BatchNormalization, (16,), (16,)), (5, 16, 11, 10)),
    ):
        yield CheckCase("relu along with a layer", partial(_fused, make, input_shape))
    for sizes, labels in (((700, 12), "int32"), ((9, 1500), "int64"), ((50, 12), "uint8"), ((50, 12), "one-hot")):
        inputs = partial(_scores, sizes, labels)
        yield CheckCase("softmax cross-entropy", partial(_loss, inputs), partial(_loss_bounds, inputs))
    yield from (CheckCase(*case) for case in (*loss_cases(), *sum_cases(), *sequence_cases()))
    yield CheckCase("gradient clipping", _clip, _clip_bounds)
    for name in optimizers.NAMES:
        yield CheckCase(f"optimizer {name}", partial(_update, name))
        yield CheckCase(f"{name} under a loss scale", partial(_scaled_update, name), partial(_scaled_bounds, name))


def _layer_case(
    operation: str, make: Callable[[str], Any], shape: tuple[int, ...], ties: bool = False, scale: float = 1.0
) -> CheckCase:
    """Return the case of a layer, made by a function of the dtype, on numbers of about the size ``scale``."""

    def inputs(dtype: str) -> tuple[Any, Array, Array]:
        layer = make(dtype)
        outputs = (shape[0], *layer.output_shape(shape[1:]))
        return layer, numbers(shape, dtype, ties=ties) * scale, numbers(outputs, dtype, 3)

    return CheckCase(operation, lambda dtype: run_layer(*inputs(dtype)), lambda dtype: layer_bounds(*inputs(dtype)))


def _window_cases(shape: tuple[int, int, int, int], window: Window) -> Iterator[CheckCase]:
    n, c = shape[:2]
    outputs, taps = window.over(shape[2:]).output, window.kernel[0] * window.kernel[1]

    def to_columns(order: str, dtype: str) -> Results:
        return {"columns": im2col(numbers(shape, dtype), window, order)}

    def columns(dtype: str) -> Array:
        return numbers((n * outputs[0] * outputs[1], c * taps), dtype)

    def to_images(order: str, method: Literal["gather", "scatter"], dtype: str) -> Results:
        return {"image": col2im(columns(dtype), shape, window, order, method)}

    def sums(order: str, dtype: str) -> Bounds:
        exact = columns(dtype).astype("float64")
        image, size = (col2im(array, shape, window, order) for array in (exact, numpy.abs(exact)))
        kind = numpy.dtype(dtype)
        return {"image": Bound(image, kind, ulps(kind, sum_ulps(taps), 1), size)}

    for order in ("CHW", "HWC"):
        yield CheckCase("im2col", partial(to_columns, order))
        yield CheckCase("col2im, gather", partial(to_images, order, "gather"))
        yield CheckCase("col2im, scatter", partial(to_images, order, "scatter"), partial(sums, order))

    def pool(kind: Any, dtype: str) -> Any:
        layer = kind(*window.kernel)
        layer.window = window
        return layer

    if all(pad <= kernel // 2 for pad, kernel in zip(window.over(shape[2:]).pads[::2], window.kernel, strict=True)):
        yield _layer_case("max pooling", partial(pool, layers.Pooling), shape, ties=True)
        yield _layer_case("average pooling", partial(pool, layers.AveragePooling), shape)

    def convolve(groups: int, dtype: str) -> Any:
        filters = numbers((2 * c, c // groups, *window.kernel), dtype, 1)
        layer = layers.Convolution(filters, numbers((2 * c,), dtype, 2), groups=groups)
        layer.window = window
        return layer

    for groups in {1, c}:
        yield _layer_case("convolution" if groups == 1 else "convolution, depthwise", partial(convolve, groups), shape)


def _layers() -> Iterator[tuple[str, Callable[[str], Any], tuple[int, ...]]]:
    """Yield the elementwise and normalizing layers: (operation, function that makes the layer in a dtype, input
    shape)."""
    image, rows = (5, 16, 11, 10), (33, 40)  # large: a wrong factor shows only among many numbers
    yield "affine", _with_parameters(layers.Affine, (40, 9), (9,)), rows
    yield "affine", _with_parameters(layers.Affine, (48, 6), (6,)), (5, 3, 4, 4)
    yield "affine", lambda dtype: layers.Affine(numbers((40, 9), dtype, 1)), rows
    yield "convolution", lambda dtype: layers.Convolution(numbers((12, 8, 3, 3), dtype, 1)), (2, 8, 9, 10)
    yield "convolution, transposed", _with_parameters(layers.ConvolutionTranspose, (6, 4, 3, 2), (4,), 2), (3, 6, 5, 4)
    yield "convolution, winograd", _with_parameters(_winograd, (12, 8, 3, 3), (12,)), (2, 8, 9, 10)
    yield "relu", lambda dtype: layers.Relu(), image
    yield "relu6", lambda dtype: layers.Relu6(), image
    yield "leaky relu", lambda dtype: layers.LeakyRelu(), image
    yield "sigmoid", lambda dtype: layers.Sigmoid(), image
    yield "tanh", lambda dtype: layers.Tanh(), image
    yield "gelu", lambda dtype: layers.Gelu(), image
    for shape in ((700, 12), (9, 1500), image):
        yield "softmax", lambda dtype: layers.Softmax(), shape
    yield "dropout", lambda dtype: layers.Dropout(0.4), image
    yield "dropout, inverted", lambda dtype: layers.Dropout(0.4, inverted=True), image
    yield "flatten", lambda dtype: layers.Flatten(), image
    yield "reshape", lambda dtype: layers.Reshape((16, 110, 1)), image
    yield "permute", lambda dtype: layers.Permute((2, 1, 3)), image
    yield "average pooling", lambda dtype: layers.AveragePooling(3, 2, 2, (1, 0), count_padding=True), image
    yield "global average pooling", lambda dtype: layers.GlobalAveragePooling(), image
    for size, shape in ((16, image), (3, (500, 3)), (70, (2000, 70))):
        yield "batch normalization", _with_parameters(layers.BatchNormalization, (size,), (size,)), shape
    yield "batch normalization, evaluated", _evaluated, image
    yield "layer normalization", _with_parameters(layers.LayerNormalization, (40,), (40,)), rows
    yield "layer normalization", _with_parameters(layers.LayerNormalization, (16, 11, 10), (16, 11, 10)), image


def _with_parameters(kind: Any, first: tuple[int, ...], second: tuple[int, ...], *options: Any) -> Callable[[str], Any]:
    """Return a function that makes a layer in a dtype, with random parameters of these two shapes."""
    return lambda dtype: kind(numbers(first, dtype, 1), numbers(second, dtype, 2), *options)


def _evaluated(dtype: str) -> Any:
    """Return a batch normalization that uses its running statistics, with variances about as large as ε."""
    mean, deviation = (numbers((16,), acc_dtype(dtype).name, seed) for seed in (3, 4))
    variance = deviation**2 * 2.0**-16
    gamma, beta = numbers((16,), dtype, 1), numbers((16,), dtype, 2)
    return layers.BatchNormalization(gamma, beta, running_mean=mean, running_var=variance).eval()


def _winograd(W: Array, b: Array) -> Any:
    return layers.Convolution(W, b, pad=1, winograd=True)


def _fused(make: Callable[[str], Any], shape: tuple[int, ...], dtype: str) -> Results:
    """Return the differences between a layer and a Relu done together and one after the other: none is promised."""
    x, apart, relu = numbers(shape, dtype), make(dtype), layers.Relu()
    together = layers.Sequential(make(dtype), layers.Relu())
    y, plain = together.forward(x), relu.forward(apart.forward(x))
    dout = numbers(plain.shape, dtype, 1)
    return {"y": y - plain, "dx": together.backward(dout) - apart.backward(relu.backward(dout))}


def _arithmetic(dtype: str) -> Results:
    x, y, dout = (numbers((3, 8, 7, 6), dtype, seed) for seed in range(3))
    product, total = layers.MulLayer(), layers.AddLayer()
    results = {"product": product.forward(x, y), "sum": total.forward(x, y)}
    for name, layer in (("product", product), ("sum", total)):
        results[f"{name}'s dx"], results[f"{name}'s dy"] = layer.backward(dout)
    return results


def _scores(shape: tuple[int, int], labels: str, dtype: str) -> tuple[Array, Array]:
    """Return scores and labels, the latter of an integer dtype or one-hot."""
    t = numpy.arange(shape[0]) * 7 % shape[1]
    given = numpy.eye(shape[1], dtype=dtype)[t] if labels == "one-hot" else t.astype(labels)
    return numbers(shape, dtype) * 4, asarray(given)


def _loss(inputs: Callable[[str], tuple[Array, Array]], dtype: str) -> Results:
    loss = layers.SoftmaxWithLoss()
    value = loss.forward(*inputs(dtype))
    return {"loss": value, "y": loss.y, "dx": loss.backward()}


def _loss_bounds(inputs: Callable[[str], tuple[Array, Array]], dtype: str) -> Bounds:
    return loss_bounds(layers.SoftmaxWithLoss(), *inputs(dtype))


def _clip(dtype: str) -> Results:
    grads = {"W": numbers((37, 50), dtype), "b": numbers((50,), dtype, 1)}
    return {"norm": clip_gradients(grads, 1.0), **grads}


def _clip_bounds(dtype: str) -> Bounds:
    results, kind, double = _clip(dtype), numpy.dtype(dtype), numpy.dtype("float64")
    norm = Bound(results.pop("norm"), double, ulps(double, sum_ulps(1900), 1))
    # The norm's last bits may decide how the factor is rounded.
    return {"norm": norm} | {name: Bound(array, kind, ulps(kind, 2, 1)) for name, array in results.items()}


def _start(dtype: str) -> tuple[Array, Callable[[int], Array]]:
    """Return parameters, and a function that makes the gradients of a step.

    A third of the parameters are 0, where the smallest step shows. Gradients have sizes from 1e-12 to 10, so that an
    optimizer's ε matters for some of them.
    """
    params = numbers((37, 15), dtype)
    params[:, ::3] = 0
    sizes = 10.0 ** numpy.linspace(-12, 1, 37 * 15).reshape(37, 15)
    return params, lambda step: asarray((asnumpy(numbers((37, 15), "float64", step)) * sizes).astype(dtype))


def _update(name: str, dtype: str) -> Results:
    """Make five steps. Device and CPU give the same bits: the kernels do not fuse a product with a sum, and divide as
    IEEE 754 defines."""
    optimizer = optimizers.by_name(name, LR, DECAY)
    params, gradient = _start(dtype)
    for step in range(5):
        optimizer.update({"W": params}, {"W": gradient(step + 1)})
    return {"W": params} | {slot: arrays["W"] for slot, arrays in optimizer.state.items()}


def _scaled_update(name: str, dtype: str) -> Results:
    """Make five steps under a loss scale, of which the first overflows and is skipped."""
    optimizer, scaler = optimizers.by_name(name, LR, DECAY), LossScaler(2.0**5)
    update = Update(optimizer, scaler=scaler)
    params, gradient = _start(dtype)
    for step in range(5):
        scaled = gradient(step + 1) * float(scaler.read()[0])
        if step == 0:
            scaled[3, 2] = numpy.inf
        update.step({"W": params}, {"W": scaled})
    state = {slot: arrays["W"] for slot, arrays in optimizer.state.items()}
    return {"W": params, "control": scaler.control, **state}


def _scaled_bounds(name: str, dtype: str) -> Bounds:
    """Return exact bounds, except for Adam.

    A device computes Adam's bias corrections itself, in the dtype of sums: the relative error of a step is about 1e-6
    (``training.optim.formulas``). On the CPU 1 - 0.999^t loses three of float64's digits. Weight decay carries a
    parameter's error into the next gradient.
    """
    results = _scaled_update(name, dtype)
    bounds = {key: Bound(asnumpy(array), array.dtype) for key, array in results.items()}
    if not name.startswith("adam"):
        return bounds
    size = numpy.abs(results["master"] if "master" in results else results["W"]) + 4 * LR
    magnitudes = {"W": size, "master": size}
    if name == "adam":  # AdamW does not add its decay to the gradient
        magnitudes |= {"m": numpy.abs(results["m"]) + DECAY * size, "v": results["v"] + (DECAY * size) ** 2}
    for key in magnitudes.keys() & results.keys():
        kind = results[key].dtype
        bounds[key] = Bound(results[key], kind, ulps(kind, 1000 if kind == "float64" else 16, 1), magnitudes[key])
    return bounds
