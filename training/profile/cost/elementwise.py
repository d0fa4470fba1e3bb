"""The cost of the layers that are no matrix products. Launches are those of their kernels, and of CuPy, on a GPU."""

from __future__ import annotations

import math

from kernels.batch_norm import tiling_of
from layers import (
    AveragePooling,
    BatchNormalization,
    Dropout,
    Flatten,
    Gelu,
    GlobalAveragePooling,
    LayerNormalization,
    LeakyRelu,
    Pooling,
    Relu,
    Residual,
    Sigmoid,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
)
from training.profile.cost.products import parameter_bytes
from training.profile.cost.work import Array, Cost, Work, formula, moves


def _reordered(x: Array) -> bool:
    """Whether it takes a copy to have all numbers of an image in a row in their logical order."""
    return len(x.shape) == 3 and x.channels_last and moves((x.shape[0], math.prod(x.shape[1:])))


def _half(x: Array) -> int:
    """1 for numbers that are summed in another dtype than their own, else 0."""
    return int(x.dtype != x.sums)


@formula(Relu)
def _relu(layer: Relu, x: Array, y: Array) -> Cost:
    mask = x.size
    forward = Work(0, x.size, x.nbytes + y.nbytes + mask, 2 + x.must_be_turned)
    return Cost(forward, Work(0, x.size, y.nbytes + mask + x.nbytes, 2, mask), kept=mask)


@formula(LeakyRelu)
def _leaky_relu(layer: LeakyRelu, x: Array, y: Array) -> Cost:
    forward = Work(0, 2 * x.size, x.nbytes + y.nbytes + x.size, 3 + x.must_be_turned)
    return Cost(forward, Work(0, 3 * x.size, y.nbytes + x.size + x.nbytes, 4), kept=x.size)


@formula(Sigmoid)
def _sigmoid(layer: Sigmoid, x: Array, y: Array) -> Cost:
    wide = x.size * x.sums.itemsize
    forward = Work(0, 7 * x.size, x.nbytes + y.nbytes, 7 + 2 * _half(x) + x.must_be_turned, 2 * wide * (1 + _half(x)))
    return Cost(forward, Work(0, 3 * x.size, 2 * y.nbytes + x.nbytes, 3), keeps_output=True)


@formula(Tanh)
def _tanh(layer: Tanh, x: Array, y: Array) -> Cost:
    forward = Work(0, x.size, x.nbytes + y.nbytes, 1 + x.must_be_turned)
    return Cost(forward, Work(0, 3 * x.size, 2 * y.nbytes + x.nbytes, 3), keeps_output=True)


@formula(Gelu)
def _gelu(layer: Gelu, x: Array, y: Array) -> Cost:
    wide, copies = x.size * x.sums.itemsize, 2 * _half(x) + x.must_be_turned
    forward = Work(0, 10 * x.size, x.nbytes + y.nbytes, 10 + copies, wide * (1 + 2 * _half(x)))
    backward = Work(0, 20 * x.size, y.nbytes + 2 * x.nbytes, 20 + copies, wide * (4 + 2 * _half(x)))
    return Cost(forward, backward, keeps_input=True)


@formula(Dropout)
def _dropout(layer: Dropout, x: Array, y: Array) -> Cost:
    mask = x.size
    forward = Work(0, x.size, x.nbytes + y.nbytes + mask, 3 + x.must_be_turned, mask)
    return Cost(forward, Work(0, x.size, y.nbytes + mask + x.nbytes, 2, mask), kept=mask)


@formula(Flatten)
def _flatten(layer: Flatten, x: Array, y: Array) -> Cost:
    copies = _reordered(x)
    forward = Work(nbytes=x.nbytes + y.nbytes, launches=1 + copies, workspace=copies * x.nbytes)
    return Cost(forward, Work(nbytes=y.nbytes + x.nbytes, launches=1))


@formula(Softmax)
def _softmax(layer: Softmax, x: Array, y: Array) -> Cost:
    forward = Work(0, 4 * x.size, x.nbytes + y.nbytes, 1 + x.must_be_turned, x.must_be_turned * x.nbytes)
    return Cost(forward, Work(0, 4 * x.size, 2 * y.nbytes + x.nbytes, 4, x.nbytes), keeps_output=True)


@formula(SoftmaxWithLoss)
def _softmax_with_loss(layer: SoftmaxWithLoss, x: Array, y: Array) -> Cost:
    """Against int32 labels, with a plain number for the scale of the gradient."""
    labels, probabilities = 4 * x.samples, x.size * x.sums.itemsize
    forward = Work(
        0, 4 * x.size + 2 * x.samples, x.nbytes + labels + probabilities + x.sums.itemsize, 2 + _half(x),
        x.samples * x.sums.itemsize + _half(x) * probabilities,
    )  # fmt: skip
    backward = Work(0, 2 * x.size, probabilities + labels + x.nbytes, 2 + _half(x), _half(x) * probabilities)
    return Cost(forward, backward, kept=probabilities + labels)


@formula(BatchNormalization)
def _batch_normalization(layer: BatchNormalization, x: Array, y: Array) -> Cost:
    columns = len(layer.gamma)
    per_channel = len(x.shape) == 3 and x.shape[0] == columns
    copies = x.must_be_turned if per_channel else _reordered(x)
    shaped = len(x.shape) == 3 and not per_channel
    statistics = 2 * columns * x.sums.itemsize
    partial = statistics * tiling_of(x.size // columns, columns).ranges
    moving = 6  # three operations on each of the running statistics
    launches = 3 + moving + copies + shaped
    nbytes = x.nbytes + parameter_bytes(layer) + y.nbytes + 2 * statistics
    forward = Work(0, 7 * x.size, nbytes, launches, partial + shaped * y.nbytes)
    nbytes = y.nbytes + 2 * x.nbytes + 2 * parameter_bytes(layer) + statistics
    launches = 3 + 2 * _half(x) + shaped + (shaped and moves((x.shape[0], math.prod(x.shape[1:]))))
    backward = Work(0, 9 * x.size, nbytes, launches, max(partial, statistics) + 2 * shaped * x.nbytes)
    kept = statistics + copies * x.nbytes
    return Cost(forward, backward, kept, keeps_input=not copies, relu_launches=2 + shaped)


@formula(LayerNormalization)
def _layer_normalization(layer: LayerNormalization, x: Array, y: Array) -> Cost:
    half, wide = _half(x), x.size * x.sums.itemsize
    rows = x.size // layer.gamma.size
    turned = layer.gamma.ndim == 3 and moves((x.shape[0], math.prod(x.shape[1:])))  # gamma and beta
    nbytes = x.nbytes + parameter_bytes(layer) + y.nbytes + wide
    launches = 10 + 2 * half + 2 * turned + x.must_be_turned
    forward = Work(0, 8 * x.size, nbytes, launches, wide * (1 + half))
    nbytes = y.nbytes + wide + x.nbytes + layer.gamma.nbytes + parameter_bytes(layer)
    backward = Work(0, 11 * x.size, nbytes, 11 + 4 * half + (3 - 2 * half) * turned, wide * (3 + half))
    return Cost(forward, backward, wide + rows * x.sums.itemsize)


@formula(Pooling)
def _max_pooling(layer: Pooling, x: Array, y: Array) -> Cost:
    argmax = 4 * y.size
    comparisons = y.size * (math.prod(layer.window.kernel) - 1)
    turned = x.must_be_turned
    forward = Work(0, comparisons, x.nbytes + y.nbytes + argmax, 1 + turned, turned * x.nbytes)
    return Cost(forward, Work(0, y.size, y.nbytes + argmax + x.nbytes, 1), kept=argmax)


@formula(AveragePooling)
def _average_pooling(layer: AveragePooling, x: Array, y: Array) -> Cost:
    flops, nbytes, turned = y.size * math.prod(layer.window.kernel), x.nbytes + y.nbytes, x.must_be_turned
    return Cost(Work(0, flops, nbytes, 1 + turned, turned * x.nbytes), Work(0, flops, nbytes, 1))


@formula(GlobalAveragePooling)
def _global_average_pooling(layer: GlobalAveragePooling, x: Array, y: Array) -> Cost:
    nbytes, turned = x.nbytes + y.nbytes, x.must_be_turned
    launches = 2 + _half(x) + turned  # CuPy turns what it takes the mean of along an axis in the middle
    forward = Work(0, x.size, nbytes, launches, (1 + turned) * x.nbytes + _half(x) * y.size * x.sums.itemsize)
    return Cost(forward, Work(0, y.size, nbytes, 2, y.nbytes))


@formula(Residual)
def _residual(layer: Residual, x: Array, y: Array) -> Cost:
    """The two sums alone: body and shortcut say their own cost."""
    turned = layer.shortcut is None and x.must_be_turned
    return Cost(Work(0, y.size, 3 * y.nbytes, 1 + turned), Work(0, x.size, 3 * x.nbytes, 1))
