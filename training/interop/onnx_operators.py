"""Operators of ONNX as layers: those that compute with weights or number by number."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy

from layers import (
    Affine,
    BatchNormalization,
    Dropout,
    Gelu,
    Layer,
    LayerNormalization,
    LeakyRelu,
    Permute,
    PositionwiseAffine,
    Relu,
    Relu6,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
)
from layers.base import Shape
from training.interop.onnx_reading import Reading
from training.interop.onnx_scaling import Scaling
from training.interop.onnx_tidy import Item

Reader = Callable[[Reading], list[Item]]
"""A function that returns the layers of a node; a ValueError of it says why there are none."""

READERS: dict[str, Reader] = {}
"""The readers of nodes with one input that is not constant, by operator."""

_LARGEST = float(numpy.finfo("float32").max)


def reads(*kinds: str) -> Callable[[Reader], Reader]:
    """Register the reader of these operators."""

    def register(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(kinds, reader))
        return reader

    return register


def axis_of_sample(at: Reading, axis: int) -> int:
    """Return an axis of an operator, counted from the batch, as one of a sample.

    Raises:
        ValueError: there is no such axis, or it is the batch.
    """
    rank = len(at.shape) + 1
    if not -rank <= axis < rank:
        raise ValueError(f"expected an axis of {rank}, got {axis}")
    if axis % rank == 0:
        raise ValueError("its axis is the batch; layers compute with each sample alone")
    return axis % rank - 1


def as_images(shape: Shape) -> Shape:
    """Return a shape of three axes, whose first is that of ``shape``."""
    return (*shape[:1], math.prod(shape[1:]), 1)


@reads("Gemm")
def _gemm(at: Reading) -> list[Item]:
    at.first("samples")
    if at.attribute("transA", 0):
        raise ValueError("transA=1 makes the samples columns; layers take them as rows")
    W, c = at.array(1, "B"), at.optional(2, "C")
    if len(at.shape) != 1 or W.ndim != 2:
        raise ValueError(f"expected rows and a matrix, got samples of {at.shape} and B of {W.shape}")
    W = at.real("alpha", 1.0) * (W.T if at.attribute("transB", 0) else W)
    if c is None:
        return [Affine(at.parameter(W))]
    if c.ndim == 2 and len(c) == 1:
        c = c[0]
    if c.ndim > 1:
        raise ValueError(f"C {c.shape} is another for each sample; a layer has one bias")
    return [Affine(at.parameter(W), at.parameter(numpy.broadcast_to(at.real("beta", 1.0) * c, W.shape[1:])))]


@reads("MatMul")
def _matmul(at: Reading) -> list[Item]:
    """Read rows times a matrix, or a vector; of samples with more axes, the last one is multiplied."""
    at.first("samples")
    W = at.array(1, "a matrix")
    if W.ndim > 2 and W.ndim <= len(at.shape) + 1 and math.prod(W.shape[:-2]) == 1:
        W = W.reshape(W.shape[-2:])
    is_vector = W.ndim == 1 and len(at.shape) > 1
    W = W[:, None] if is_vector else W
    if W.ndim != 2 or not at.shape or at.shape[-1] != len(W):
        raise ValueError(f"expected a matrix with a row for each of the last axis of {at.shape}, got {W.shape}")
    *leading, inputs = at.shape
    if not leading:
        return [Affine(at.parameter(W))]
    layer = PositionwiseAffine(at.parameter(W))
    outputs = [] if is_vector else [W.shape[1]]
    return [Reshape((math.prod(leading), inputs)), layer, Reshape((*leading, *outputs))]


@reads("Add", "Sub", "Mul", "Div")
def _arithmetic(at: Reading) -> list[Item]:
    kind, (index, array) = at.node.kind, next(iter(at.arrays.items()))
    if index == 0 and kind == "Div":
        raise ValueError("it divides a constant by its input")
    if at.opset < 7 and array.ndim and "axis" in at.node.attributes:  # its first axis there, counted from the batch
        array = array.reshape(array.shape + (1,) * (len(at.shape) + 1 - at.attribute("axis", 0) - array.ndim))
    array, none = _of_a_sample(at, array), numpy.zeros(())
    factor, shift = {
        "Add": (none + 1, array),
        "Sub": (none + 1, -array) if index else (none - 1, array),
        "Mul": (array, none),
        "Div": (1 / numpy.where(array == 0, numpy.nan, array), none),
    }[kind]
    return _scaling(at, factor, shift)


@reads("Sum")
def _sum(at: Reading) -> list[Item]:
    """Read a sum of samples and constants."""
    return _scaling(at, numpy.ones(()), sum((_of_a_sample(at, array) for array in at.arrays.values()), numpy.zeros(())))


def _scaling(at: Reading, factor: numpy.ndarray, shift: numpy.ndarray) -> list[Item]:
    if not numpy.isfinite(factor).all() or not numpy.isfinite(shift).all():
        raise ValueError("expected finite constants, and none of 0 to divide by")
    return [Scaling(at.shape, factor, shift)]


def _of_a_sample(at: Reading, array: numpy.ndarray) -> numpy.ndarray:
    """Return a constant that meets samples number by number in float64, without the axis of the batch.

    Raises:
        ValueError: it is another for each sample, or does not fit in one.
    """
    if array.ndim > len(at.shape):
        if array.ndim > len(at.shape) + 1 or len(array) != 1:
            raise ValueError(f"its constant {array.shape} is another for each sample of {at.shape}")
        array = array[0]
    if numpy.broadcast_shapes(array.shape, at.shape) != at.shape:
        raise ValueError(f"its constant {array.shape} enlarges samples of {at.shape}")
    return array.astype("float64")


@reads("BatchNormalization")
def _batch_normalization(at: Reading) -> list[Item]:
    at.first("samples")
    if at.attribute("training_mode", 0) or not at.attribute("spatial", 1):
        raise ValueError("expected statistics of channels that are kept (training_mode=0, spatial=1)")
    gamma, beta = (at.parameter(at.array(index, name)) for index, name in ((1, "scale"), (2, "bias")))
    mean, variance = (at.statistic(at.array(index, name)) for index, name in ((3, "mean"), (4, "variance")))
    momentum, eps = at.real("momentum", 0.9), at.real("epsilon", 1e-5)
    layer = BatchNormalization(gamma, beta, momentum, mean, variance, eps)
    if at.shape[:1] != gamma.shape:
        raise ValueError(f"it normalizes {gamma.shape[0]} channels of samples {at.shape}")
    return [layer] if len(at.shape) in (1, 3) else [Reshape(as_images(at.shape)), layer, Reshape(at.shape)]


@reads("LayerNormalization")
def _layer_normalization(at: Reading) -> list[Item]:
    at.first("samples")
    axis = axis_of_sample(at, at.attribute("axis", -1))
    leading, features = at.shape[:axis], at.shape[axis:]
    bias = at.optional(2, "bias")
    given = at.array(1, "scale"), numpy.zeros(features) if bias is None else bias
    gamma, beta = (numpy.broadcast_to(array, features) for array in given)
    if len(features) != 3 or leading:
        gamma, beta = gamma.reshape(-1), beta.reshape(-1)
    layer = LayerNormalization(at.parameter(gamma), at.parameter(beta), at.real("epsilon", 1e-5))
    if gamma.ndim == 3:
        return [layer]
    if len(features) == 1:
        return _along(layer, at.shape, len(at.shape) - 1)
    rows = (math.prod(leading), gamma.size) if leading else (gamma.size,)
    return [Reshape(rows), layer, Reshape(at.shape)]


@reads("Softmax")
def _softmax(at: Reading) -> list[Item]:
    old = at.opset < 13  # it was along all axes from this one
    axis = axis_of_sample(at, at.attribute("axis", 1 if old else -1))
    if not old or axis == len(at.shape) - 1:
        return _along(Softmax(), at.shape, axis)
    leading = at.shape[:axis]
    flat = (math.prod(leading), math.prod(at.shape[axis:])) if leading else (math.prod(at.shape),)
    return [Reshape(flat), Softmax(), Reshape(at.shape)]


def _along(layer: Layer, shape: Shape, axis: int) -> list[Item]:
    """Return a layer that computes along the last axis of samples, or along the channels of images, for any axis."""
    last = 0 if len(shape) == 3 else len(shape) - 1
    order = [each for each in range(len(shape)) if each != axis]
    order.insert(last, axis)
    back = [order.index(each) for each in range(len(shape))]
    before, behind = (Permute(tuple(each + 1 for each in axes)) for axes in (order, back))
    return [before, layer, behind]


@reads("Relu", "Sigmoid", "Tanh")
def _function(at: Reading) -> list[Item]:
    return [{"Relu": Relu, "Sigmoid": Sigmoid, "Tanh": Tanh}[at.node.kind]()]


@reads("LeakyRelu")
def _leaky_relu(at: Reading) -> list[Item]:
    return [LeakyRelu(at.real("alpha", 0.01))]


@reads("Gelu")
def _gelu(at: Reading) -> list[Item]:
    if at.attribute("approximate", "none") != "tanh":
        raise ValueError(EXACT_GELU)
    return [Gelu()]


EXACT_GELU = "xpnet's Gelu is the approximation by tanh, up to 5e-4 from that by erf: export with approximate='tanh'"
"""Why a GELU is not imported."""


@reads("Clip")
def _clip(at: Reading) -> list[Item]:
    least, most = (
        at.attribute(name, None) if at.opset < 11 else at.number(index, name)
        for index, name in ((1, "min"), (2, "max"))
    )
    least = -math.inf if least is None or least <= -_LARGEST else least
    most = math.inf if most is None or most >= _LARGEST else most
    known: dict[tuple[float, float], list[Item]] = {
        (-math.inf, math.inf): [],
        (0, math.inf): [Relu()],
        (0, 6): [Relu6()],
    }
    if (least, most) not in known:
        raise ValueError(f"it clips to {least:g} … {most:g}; layers clip to 0 and more, or to 0 … 6")
    return known[least, most]


@reads("Dropout")
def _dropout(at: Reading) -> list[Item]:
    ratio = at.real("ratio", 0.5) if at.opset < 12 else at.number(1, "ratio")
    if at.opset >= 12 and ratio != 0 and at.number(2, "training_mode"):
        raise ValueError("it drops in evaluation, too (training_mode)")
    return [Dropout(0.5 if ratio is None else ratio, inverted=True)]


@reads("Identity")
def _identity(at: Reading) -> list[Item]:
    return []


@reads("Cast")
def _cast(at: Reading) -> list[Item]:
    if at.attribute("to", None) != at.input.kind:
        raise ValueError(f"it converts to another dtype than the network's, {at.input.dtype}")
    return []
