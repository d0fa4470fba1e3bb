"""Bounds for the outputs, gradients and state of every kind of layer.

The reference is the layer itself in float64 on the CPU; where it is linear, the same layer over absolute
values gives the magnitudes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy

import layers
from backend import random
from backend.types import Array
from training.check.bounds import FUNCTION_ULPS, Arrays, Bound, measured_bound, sum_ulps, ulps

Bounds = dict[str, Bound]
Sizes = dict[str, tuple[float, Array | None]]


def run_layer(layer: Any, x: Array, dout: Array) -> dict[str, Array]:
    """Run forward and backward: ``y``, ``dx`` if there is one, parameter gradients (``dW``, …) and state by name."""
    y = layer.forward(x)
    dx = layer.backward(dout)
    gradients = {f"d{name}": gradient for name, gradient in layer.grads.items()}
    return {"y": y} | ({} if dx is None else {"dx": dx}) | gradients | layer.state


def layer_bounds(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
    """Return the bounds of the arrays that ``run_layer`` returns for these host arrays, in their dtype.

    A layer of a kind that xpnet does not have is held to a multiple of the CPU's error: see ``measured_bound``.

    Args:
        layer: on the CPU, in its state before the forward, without sublayers. It is not changed.
        x: the input.
        dout: the gradient of the output.
    """
    return _RULES.get(type(layer), _measured)(layer, x, dout)


def _exact(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Arrays:
    """Run a copy of the layer in float64."""
    return run_layer(copy.deepcopy(layer).astype("float64"), x.astype("float64"), dout.astype("float64"))


def _absolute(layer: Any) -> Any:
    """Return a copy of the layer with the absolute values of its parameters."""
    twin = copy.deepcopy(layer)
    for name, array in list(twin.params.items()):
        setattr(twin, name, numpy.abs(array))
    return twin


def _measured(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
    start = random.current().state
    exact = _exact(layer, x, dout)
    random.current().state = start
    given = run_layer(copy.deepcopy(layer), x, dout)
    return {name: measured_bound(exact[name], array) for name, array in given.items()}


def elementwise_factor(dtype: numpy.dtype) -> float:
    """Return the error that elementwise results may have in common: one ulp, half of it from the function itself."""
    return ulps(dtype, 0, 1)


def _without_rounding(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
    return {name: Bound(array, x.dtype) for name, array in _exact(layer, x, dout).items()}


def _elementwise(errors: Callable[[Array, Array, Array], Sizes]) -> Any:
    """Turn a function of (x, dout, exact y) that returns {name: (ulps, magnitude)} into a rule for a layer."""

    def rule(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
        exact = _exact(layer, x, dout)
        given = errors(x.astype("float64"), dout.astype("float64"), exact["y"])
        return {
            name: Bound(exact[name], x.dtype, ulps(x.dtype, own, 4), magnitude, elementwise_factor(x.dtype))
            for name, (own, magnitude) in given.items()
            if name in exact
        }

    return rule


@_elementwise
def _leaky_relu(x: Array, dout: Array, y: Array) -> Sizes:
    return {"y": (0, None), "dx": (0, None)}  # the slope is rounded, too


def _dropout(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
    rule: Any = _leaky_relu if layer.inverted else _without_rounding  # the factor is rounded, as a slope is
    return rule(layer, x, dout)


@_elementwise
def _sigmoid(x: Array, dout: Array, y: Array) -> Sizes:
    return {"y": (1.5 * FUNCTION_ULPS, None), "dx": (1.5 * FUNCTION_ULPS, numpy.abs(dout) * y)}


@_elementwise
def _tanh(x: Array, dout: Array, y: Array) -> Sizes:
    return {"y": (FUNCTION_ULPS, None), "dx": (2 * FUNCTION_ULPS, numpy.abs(dout))}


@_elementwise
def _gelu(x: Array, dout: Array, y: Array) -> Sizes:
    size = numpy.abs(x)
    return {"y": (FUNCTION_ULPS, size), "dx": (FUNCTION_ULPS, numpy.abs(dout) * (1 + size + size**3 / 4))}


def _softmax(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
    exact = _exact(layer, x, dout)
    y, depth, mean_depth = exact["y"], *depths(x.astype("float64"), exact["y"])
    of_y = y * (1 + depth + mean_depth)
    size = numpy.abs(dout).astype("float64")
    of_dx = of_y * (size + (size * of_y).sum(axis=-1, keepdims=True))
    sums = sum_ulps(x.shape[-1]) + 2 * FUNCTION_ULPS + 2
    return {
        "y": Bound(y, x.dtype, ulps(x.dtype, sums, 1), of_y, elementwise_factor(x.dtype)),
        "dx": Bound(exact["dx"], x.dtype, ulps(x.dtype, 3 * sums, 6), of_dx, elementwise_factor(x.dtype)),
    }


def depths(x: numpy.ndarray, y: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return how far each score is below the largest of its row, and the mean of that under the probabilities.

    A difference d is rounded before exp, which gives the result an error of d/2 ulps.
    """
    depth = x.max(axis=-1, keepdims=True) - x
    return depth, (depth * y).sum(axis=-1, keepdims=True)


def _linear(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
    exact = _exact(layer, x, dout)
    sizes = _exact(_absolute(layer), numpy.abs(x), numpy.abs(dout))
    if getattr(layer, "winograd", False):  # its transforms mix neighboring pixels, and make errors ten times as large
        sizes, worse = {name: size.max() for name, size in sizes.items()}, 40
    else:
        worse = 1
    terms = _terms(layer, x, exact["y"])
    # Tensor cores truncate partial sums, after eight products or more: half an ulp each, of half the sum on average.
    return {
        name: Bound(
            exact[name],
            x.dtype,
            ulps(x.dtype, worse * sum_ulps(terms[name]), 2),
            sizes[name],
            ulps(x.dtype, worse * terms[name] / 32, 1),
        )
        for name in exact
    }


def _terms(layer: Any, x: numpy.ndarray, y: numpy.ndarray) -> dict[str, int]:
    """Return the number of products that are summed in an element of each result."""
    W, samples = layer.W, len(x)
    if isinstance(layer, layers.Affine):
        return {"y": len(W) + 1, "dx": W.shape[1], "dW": samples, "db": samples}
    if isinstance(layer, layers.PositionwiseAffine):
        positions = samples * x.shape[1]
        return {"y": len(W) + 1, "dx": W.shape[1], "dW": positions, "db": positions}
    of_filter, of_channel = W.size // y.shape[1], W.size // x.shape[1]
    pixels = samples * math.prod((x if isinstance(layer, layers.ConvolutionTranspose) else y).shape[2:])
    return {"y": of_filter + 1, "dx": of_channel, "dW": pixels, "db": samples * math.prod(y.shape[2:])}


def _pooling(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
    window, averages = layer.window, isinstance(layer, layers.AveragePooling)
    exact = _exact(layer, x, dout)
    sizes = _exact(layer, numpy.abs(x) if averages else x, numpy.abs(dout))  # a maximum has to be the same one
    overlapping = math.prod(
        min(taps, -(-extent // stride))
        for taps, extent, stride in zip(window.kernel, window.extent, window.stride, strict=True)
    )
    additions = {"y": math.prod(window.kernel) - 1 if averages else 0, "dx": overlapping - 1}
    return {
        name: Bound(
            exact[name],
            x.dtype,
            ulps(x.dtype, sum_ulps(count) + 2 * averages, 1 if count or averages else 0),
            sizes[name] if count else None,
            elementwise_factor(x.dtype) if averages else math.inf,
        )
        for name, count in additions.items()
    }


def _global_average(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
    exact, pixels = _exact(layer, x, dout), math.prod(x.shape[2:])
    sizes = _exact(layer, numpy.abs(x), dout)
    return {
        "y": Bound(exact["y"], x.dtype, ulps(x.dtype, sum_ulps(pixels), 2), sizes["y"]),
        "dx": Bound(exact["dx"], x.dtype, ulps(x.dtype, 0, 2), None, elementwise_factor(x.dtype)),
    }


def _batch_normalization(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
    wide, axes = x.astype("float64"), (0, 2, 3) if x.ndim == 4 else (0,)
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    state = {name: array.astype("float64").reshape(shape) for name, array in layer.state.items()}
    if layer.training:
        mean, variance = wide.mean(axis=axes, keepdims=True), wide.var(axis=axes, keepdims=True)
    else:
        mean, variance = state["running_mean"], state["running_var"]
    found = _normalization(layer, x, dout, mean, variance, axes if layer.training else (), axes)
    exact, moved = _exact(layer, x, dout), layer.momentum if layer.training else 1
    batch = {"running_mean": numpy.abs(wide).mean(axis=axes, keepdims=True), "running_var": variance}
    for name, running in state.items():
        dtype = layer.state[name].dtype
        magnitude = moved * numpy.abs(running) + (1 - moved) * batch[name]
        error = ulps(dtype, sum_ulps(x.size // running.size) + 4, 0)
        found[name] = Bound(exact[name], dtype, error, magnitude.reshape(-1))
    return found


def _layer_normalization(layer: Any, x: numpy.ndarray, dout: numpy.ndarray) -> Bounds:
    wide, axes = x.astype("float64"), tuple(range(1, x.ndim)) if layer.gamma.ndim == 3 else (1 if x.ndim == 4 else -1,)
    mean, variance = wide.mean(axis=axes, keepdims=True), wide.var(axis=axes, keepdims=True)
    own = {axis % x.ndim for axis in axes}
    return _normalization(
        layer, x, dout, mean, variance, axes, tuple(axis for axis in range(x.ndim) if axis not in own)
    )


def _normalization(
    layer: Any, x: numpy.ndarray, dout: numpy.ndarray, mean: Array, variance: Array, axes: Any, shared: Any
) -> Bounds:
    """Return the bounds of y = γ·(x - mean)/√(variance + ε) + β and its gradients.

    Args:
        axes: over which mean and variance are those of x; () where they are given.
        shared: the axes along which all elements have the same γ and β.
    """
    exact, x_size, size = _exact(layer, x, dout), numpy.abs(x).astype("float64"), numpy.abs(dout).astype("float64")
    shape = [1 if axis in shared else length for axis, length in enumerate(x.shape)]
    gamma, beta = (numpy.abs(p).astype("float64").reshape(shape) for p in (layer.gamma, layer.beta))
    inverse = 1 / numpy.sqrt(variance + layer.eps)
    # The normalized x, with all that cancels in the difference from the mean.
    spread = (x_size + numpy.abs(mean) + (x_size.mean(axis=axes, keepdims=True) if axes else 0)) * inverse
    through_statistics: Any = 0.0
    if axes:
        of_product = (gamma * size * spread).mean(axis=axes, keepdims=True)
        through_statistics = (gamma * size).mean(axis=axes, keepdims=True) + spread * of_product
    magnitudes = {
        "y": gamma * spread + beta,
        "dx": inverse * (gamma * size + through_statistics),
        "dgamma": (size * spread).sum(axis=shared).reshape(layer.gamma.shape),
        "dbeta": size.sum(axis=shared).reshape(layer.gamma.shape),
    }
    statistics = 1.5 * sum_ulps(math.prod(x.shape[axis] for axis in axes)) + 6 if axes else 4
    of_sum = sum_ulps(math.prod(x.shape[axis] for axis in shared))
    errors = {"y": statistics, "dx": 2 * statistics, "dgamma": statistics + of_sum, "dbeta": of_sum}
    if shared == axes:  # of a batch: the input's gradient is made of these sums
        errors["dx"] += of_sum
    bounds = {name: Bound(exact[name], x.dtype, ulps(x.dtype, errors[name], 2), magnitudes[name]) for name in errors}
    bounds["y"] = replace(bounds["y"], factor_ulps=elementwise_factor(x.dtype))
    return bounds


_RULES: dict[type, Callable[[Any, numpy.ndarray, numpy.ndarray], Bounds]] = {
    layers.Affine: _linear,
    layers.PositionwiseAffine: _linear,
    layers.Convolution: _linear,
    layers.ConvolutionTranspose: _linear,
    layers.Relu: _without_rounding,
    layers.Relu6: _without_rounding,
    layers.LeakyRelu: _leaky_relu,
    layers.Sigmoid: _sigmoid,
    layers.Tanh: _tanh,
    layers.Gelu: _gelu,
    layers.Softmax: _softmax,
    layers.Dropout: _dropout,
    layers.Flatten: _without_rounding,
    layers.Reshape: _without_rounding,
    layers.Permute: _without_rounding,
    layers.Pooling: _pooling,
    layers.AveragePooling: _pooling,
    layers.GlobalAveragePooling: _global_average,
    layers.BatchNormalization: _batch_normalization,
    layers.LayerNormalization: _layer_normalization,
}
