"""The layers as operators of ONNX, opset 17, in evaluation.

The batch is an axis of any length; images keep their size. Padding is written in numbers for that size, so that
``"same"`` and windows that fit only in part are what they are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from backend import asnumpy
from layers import (
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    Flatten,
    Gelu,
    GlobalAveragePooling,
    Layer,
    LayerNormalization,
    LeakyRelu,
    Permute,
    Pooling,
    Relu,
    Relu6,
    Reshape,
    Residual,
    Sequential,
    Sigmoid,
    Skip,
    Softmax,
    Tanh,
)
from layers.base import Shape, joined


class Graph:
    """Nodes and constants, as they are written one after another.

    Args:
        onnx: the package.

    Attributes:
        nodes: operators, in the order of the forward.
        constants: arrays by name.
    """

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, numpy.ndarray] = {}

    def node(self, kind: str, place: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator at the place of a layer, and return the name of its output."""
        output = f"{place}/{kind}{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, array: Any) -> str:
        """Add a constant, float32 unless it is of whole numbers, and return its name."""
        array = numpy.asarray(array if isinstance(array, (int, float, list)) else asnumpy(array))
        self.constants[name] = numpy.asarray(array, "int64" if array.dtype.kind in "iu" else "float32", order="C")
        return name

    def parameters(self, layer: Layer, place: str) -> list[str]:
        """Add a layer's parameters as constants, in its order, and return their names."""
        return [self.constant(joined(place, name), array) for name, array in layer.params.items()]

    def layer(self, layer: Layer, place: str, x: str, shape: Shape) -> str:
        """Add a layer with all inside it, for samples of ``shape``; return the name of its output.

        Raises:
            ValueError: ONNX has no operator for it.
        """
        kind = next((kind for kind in type(layer).__mro__ if kind in _WRITERS), None)
        if kind is None or type(layer).forward is not kind.forward:
            raise ValueError(f"the layer {place}, {layer!r}, is no operator of ONNX that xpnet knows")
        return _WRITERS[kind](self, layer, place, x, shape)


Writer = Callable[[Graph, Any, str, str, Shape], str]
_WRITERS: dict[type[Layer], Writer] = {}


def writes(*kinds: type[Layer]) -> Callable[[Writer], Writer]:
    """Register the function that writes layers of these kinds."""

    def register(writer: Writer) -> Writer:
        _WRITERS.update(dict.fromkeys(kinds, writer))
        return writer

    return register


@writes(Sequential)
def _sequential(graph: Graph, layer: Sequential, place: str, x: str, shape: Shape) -> str:
    for name, each in layer.sublayers():
        x, shape = graph.layer(each, joined(place, name), x, shape), each.output_shape(shape)
    return x


@writes(Residual)
def _residual(graph: Graph, layer: Residual, place: str, x: str, shape: Shape) -> str:
    body = graph.layer(layer.body, f"{place}.body", x, shape)
    bypass = x if layer.shortcut is None else graph.layer(layer.shortcut, f"{place}.shortcut", x, shape)
    return graph.node("Add", place, body, bypass)


@writes(Skip)
def _skip(graph: Graph, layer: Skip, place: str, x: str, shape: Shape) -> str:
    body = graph.layer(layer.body, f"{place}.body", x, shape)
    return graph.node("Concat", place, x, body, axis=1 if len(shape) == 3 else -1)


@writes(Affine)
def _affine(graph: Graph, layer: Affine, place: str, x: str, shape: Shape) -> str:
    x = x if len(shape) == 1 else graph.node("Flatten", place, x, axis=1)
    return graph.node("Gemm", place, x, *graph.parameters(layer, place))


@writes(Convolution)
def _convolution(graph: Graph, layer: Convolution, place: str, x: str, shape: Shape) -> str:
    return graph.node("Conv", place, x, *graph.parameters(layer, place), **_window(layer, shape), group=layer.groups)


@writes(ConvolutionTranspose)
def _convolution_transpose(graph: Graph, layer: ConvolutionTranspose, place: str, x: str, shape: Shape) -> str:
    window = _window(layer, layer.output_shape(shape))
    return graph.node("ConvTranspose", place, x, *graph.parameters(layer, place), **window)


def _window(layer: Any, shape: Shape) -> dict[str, Any]:
    """Return the attributes of a window over images of a shape."""
    geometry = layer.window.over((shape[1], shape[2]))
    (top, bottom, left, right), stride = geometry.pads, geometry.stride
    # A last window that fits only in part is given the padding that it lacks.
    more = [
        max(0, (count - 1) * step + extent - size - before - after)
        for count, step, extent, size, before, after in zip(
            geometry.output, stride, geometry.extent, shape[1:], (top, left), (bottom, right), strict=True
        )
    ]
    return {
        "kernel_shape": list(geometry.kernel),
        "strides": list(stride),
        "dilations": list(geometry.dilation),
        "pads": [top, left, bottom + more[0], right + more[1]],
    }


@writes(Pooling)
def _pooling(graph: Graph, layer: Pooling, place: str, x: str, shape: Shape) -> str:
    window = _window(layer, shape)
    if _is_padded_beyond(window):
        top, left, bottom, right = window.pop("pads")
        pads = graph.constant(f"{place}.pads", [0, 0, top, left, 0, 0, bottom, right])
        x = graph.node("Pad", place, x, pads, graph.constant(f"{place}.least", -math.inf))
    return graph.node("MaxPool", place, x, **window)


@writes(AveragePooling)
def _average_pooling(graph: Graph, layer: AveragePooling, place: str, x: str, shape: Shape) -> str:
    """Write AveragePool; sums of windows times 1 / (pixels that count) where opset 17 has no such AveragePool.

    It has no dilation. Nor does it say whether a mean that counts padding counts what lies beyond that, in a window
    that fits only in part: other programs differ.
    """
    window, geometry = _window(layer, shape), layer.window.over((shape[1], shape[2]))
    geometry.require_pixels()
    shares = geometry.reciprocal_counts(layer.count_padding, "float32")[..., 0]
    counts_all = not layer.count_padding or bool((shares == shares[0, 0]).all())
    if counts_all and window["dilations"] == [1, 1] and not _is_padded_beyond(window):
        del window["dilations"]
        return graph.node("AveragePool", place, x, **window, count_include_pad=int(layer.count_padding))
    ones = graph.constant(f"{place}.ones", numpy.ones((shape[0], 1, *geometry.kernel)))
    sums = graph.node("Conv", place, x, ones, **window, group=shape[0])
    return graph.node("Mul", place, sums, graph.constant(f"{place}.shares", shares))


def _is_padded_beyond(window: dict[str, Any]) -> bool:
    """Return whether padding is as wide as the window or wider, which onnxruntime takes of no pooling."""
    return any(pad >= size for pad, size in zip(window["pads"], 2 * window["kernel_shape"], strict=True))


@writes(GlobalAveragePooling)
def _global_average_pooling(graph: Graph, layer: Layer, place: str, x: str, shape: Shape) -> str:
    return graph.node("Flatten", place, graph.node("GlobalAveragePool", place, x), axis=1)


@writes(BatchNormalization)
def _batch_normalization(graph: Graph, layer: BatchNormalization, place: str, x: str, shape: Shape) -> str:
    by_pixel = len(shape) == 3 and len(layer.gamma) != shape[0]
    x = graph.node("Flatten", place, x, axis=1) if by_pixel else x
    arrays = {**layer.params, **layer.state}
    names = [
        graph.constant(f"{place}.{name}", arrays[name]) for name in ("gamma", "beta", "running_mean", "running_var")
    ]
    y = graph.node("BatchNormalization", place, x, *names, epsilon=layer.eps, momentum=layer.momentum)
    return _reshaped(graph, place, y, shape) if by_pixel else y


@writes(LayerNormalization)
def _layer_normalization(graph: Graph, layer: LayerNormalization, place: str, x: str, shape: Shape) -> str:
    names, by_pixel = graph.parameters(layer, place), len(shape) == 3 and layer.gamma.ndim == 1
    x = graph.node("Transpose", place, x, perm=[0, 2, 3, 1]) if by_pixel else x
    y = graph.node("LayerNormalization", place, x, *names, axis=-layer.gamma.ndim, epsilon=layer.eps)
    return graph.node("Transpose", place, y, perm=[0, 3, 1, 2]) if by_pixel else y


@writes(Relu, Sigmoid, Tanh)
def _function(graph: Graph, layer: Layer, place: str, x: str, shape: Shape) -> str:
    kind = next(kind for kind in (Relu, Sigmoid, Tanh) if isinstance(layer, kind))
    return graph.node(kind.__name__, place, x)


@writes(Relu6)
def _relu6(graph: Graph, layer: Layer, place: str, x: str, shape: Shape) -> str:
    least, most = graph.constant(f"{place}.least", 0.0), graph.constant(f"{place}.most", 6.0)
    return graph.node("Clip", place, x, least, most)


@writes(LeakyRelu)
def _leaky_relu(graph: Graph, layer: LeakyRelu, place: str, x: str, shape: Shape) -> str:
    return graph.node("LeakyRelu", place, x, alpha=layer.slope)


@writes(Gelu)
def _gelu(graph: Graph, layer: Layer, place: str, x: str, shape: Shape) -> str:
    """Write x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))): the operator Gelu is younger than opset 17."""

    def number(name: str, value: float) -> str:
        return graph.constant(f"{place}.{name}", value)

    cube = graph.node("Mul", place, graph.node("Mul", place, x, x), x)
    inner = graph.node("Add", place, x, graph.node("Mul", place, cube, number("cubic", 0.044715)))
    tanh = graph.node("Tanh", place, graph.node("Mul", place, inner, number("factor", math.sqrt(2 / math.pi))))
    share = graph.node("Mul", place, graph.node("Add", place, tanh, number("one", 1.0)), number("half", 0.5))
    return graph.node("Mul", place, share, x)


@writes(Softmax)
def _softmax(graph: Graph, layer: Layer, place: str, x: str, shape: Shape) -> str:
    return graph.node("Softmax", place, x, axis=1 if len(shape) == 3 else -1)


@writes(Dropout)
def _dropout(graph: Graph, layer: Dropout, place: str, x: str, shape: Shape) -> str:
    if layer.inverted or not layer.dropout_ratio:
        return x
    return graph.node("Mul", place, x, graph.constant(f"{place}.stays", 1 - layer.dropout_ratio))


@writes(Flatten)
def _flatten(graph: Graph, layer: Layer, place: str, x: str, shape: Shape) -> str:
    return graph.node("Flatten", place, x, axis=1)


@writes(Reshape)
def _reshape(graph: Graph, layer: Reshape, place: str, x: str, shape: Shape) -> str:
    return _reshaped(graph, place, x, layer.shape)


@writes(Permute)
def _permute(graph: Graph, layer: Permute, place: str, x: str, shape: Shape) -> str:
    return graph.node("Transpose", place, x, perm=[0, *layer.axes])


def _reshaped(graph: Graph, place: str, x: str, shape: Shape) -> str:
    return graph.node("Reshape", place, x, graph.constant(f"{place}.shape", [-1, *shape]))
