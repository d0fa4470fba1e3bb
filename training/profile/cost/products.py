"""The cost of fully connected layers, and what a column sum takes."""

from __future__ import annotations

import math

import numpy

from kernels.core.dtypes import acc_dtype
from kernels.core.layout import fold_of
from layers import Affine, Layer
from layers.affine import turns_weight
from training.profile.cost.work import Array, Cost, Work, formula, moves


def parameter_bytes(layer: Layer) -> int:
    """Bytes of a layer's parameters."""
    return sum(array.nbytes for array in layer.params.values())


def column_sums(rows: int, columns: int, dtype: numpy.dtype) -> Work:
    """Of ``kernels.gemm.column_sums`` into an array that is there, without its bytes."""
    sums = acc_dtype(dtype)
    ones_and_product, widened_and_rounded = 2, 2 * (dtype != sums)
    launches = ones_and_product + (fold_of(rows, columns) > 1) + widened_and_rounded
    return Work(0, rows * columns, 0, launches, (dtype != sums) * rows * columns * sums.itemsize)


@formula(Affine)
def _affine(layer: Affine, x: Array, y: Array) -> Cost:
    inputs, outputs = layer.W.shape
    images = len(x.shape) == 3
    differs = images and moves((x.shape[0], math.prod(x.shape[1:])))  # channels-last memory from the logical order
    turns = images and turns_weight(x.samples, outputs)
    copies_w = differs and turns
    copies_x = differs and turns != x.channels_last
    products, weights = 2 * x.samples * inputs * outputs, parameter_bytes(layer)
    forward = Work(products, y.size, x.nbytes + weights + y.nbytes, 2 + copies_w + copies_x)
    backward = Work(products, 0, x.nbytes + y.nbytes + weights, 1 + turns, turns * layer.W.nbytes)
    backward = backward.then(column_sums(x.samples, outputs, x.dtype))
    if layer.input_gradient:
        copies_dx = images and not turns
        read_and_written = layer.W.nbytes + x.nbytes
        backward = backward.then(Work(products, 0, read_and_written, 1 + copies_dx, copies_dx * x.nbytes))
    return Cost(forward, backward, copies_w * layer.W.nbytes + copies_x * x.nbytes, keeps_input=not copies_x)
