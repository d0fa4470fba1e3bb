"""The layers of transformers as operators of ONNX: attention is products and a softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy

from layers import MultiHeadAttention, PositionalEmbedding, PositionalEncoding, PositionwiseAffine
from layers.base import Shape
from training.interop.onnx_graph import Graph, writes


@writes(PositionwiseAffine)
def _positionwise_affine(graph: Graph, layer: PositionwiseAffine, place: str, x: str, shape: Shape) -> str:
    return _projected(graph, place, x, *graph.parameters(layer, place))


def _projected(graph: Graph, place: str, x: str, weight: str, *bias: str) -> str:
    """Return x·W + b along the last axis."""
    y = graph.node("MatMul", place, x, weight)
    return graph.node("Add", place, y, *bias) if bias else y


@writes(MultiHeadAttention)
def _attention(graph: Graph, layer: MultiHeadAttention, place: str, x: str, shape: Shape) -> str:
    (length, size), heads = shape, layer.heads
    weight, bias, *out = graph.parameters(layer, place)
    packed = _projected(graph, place, x, weight, bias)
    parts = graph.constant(f"{place}.parts", [-1, length, 3, heads, size // heads])
    packed = graph.node("Reshape", place, packed, parts)

    def part(name: str, index: int, perm: list[int]) -> str:
        taken = graph.node("Gather", place, packed, graph.constant(f"{place}.{name}", index), axis=2)
        return graph.node("Transpose", place, taken, perm=perm)

    q, v = part("q", 0, [0, 2, 1, 3]), part("v", 2, [0, 2, 1, 3])  # (batch, heads, length, size / heads)
    scores = graph.node("MatMul", place, q, part("k", 1, [0, 2, 3, 1]))
    scores = graph.node("Mul", place, scores, graph.constant(f"{place}.scale", 1 / math.sqrt(size // heads)))
    if layer.causal:
        later = numpy.where(numpy.tri(length, dtype=bool), 0.0, -numpy.inf)
        scores = graph.node("Add", place, scores, graph.constant(f"{place}.later", later))
    y = graph.node("MatMul", place, graph.node("Softmax", place, scores, axis=-1), v)
    y = graph.node("Transpose", place, y, perm=[0, 2, 1, 3])
    y = graph.node("Reshape", place, y, graph.constant(f"{place}.rows", [-1, length, size]))
    return _projected(graph, place, y, *out)


@writes(PositionalEncoding, PositionalEmbedding)
def _positional(graph: Graph, layer: Any, place: str, x: str, shape: Shape) -> str:
    is_learned = isinstance(layer, PositionalEmbedding)
    positions = layer.W[: shape[0]] if is_learned else layer.positions(shape[0], "float32")
    return graph.node("Add", place, x, graph.constant(f"{place}.positions", positions))
