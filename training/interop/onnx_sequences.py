"""The layers over sequences as operators of ONNX: embeddings and recurrent layers."""

from __future__ import annotations

import numpy

from backend import asnumpy
from backend.types import Array
from layers import GRU, LSTM, RNN, Embedding, Layer
from layers.base import Shape
from training.interop.onnx_graph import Graph, writes

GATES: dict[type[Layer], tuple[int, ...]] = {RNN: (0,), LSTM: (0, 3, 1, 2), GRU: (1, 0, 2)}
"""ONNX's order of gates by their places in the layers': i, o, f, c for i, f, g, o, and z, r, h for r, z, n."""


@writes(Embedding)
def _embedding(graph: Graph, layer: Embedding, place: str, x: str, shape: Shape) -> str:
    return graph.node("Gather", place, *graph.parameters(layer, place), x, axis=0)


@writes(RNN, LSTM, GRU)
def _recurrent(graph: Graph, layer: RNN | LSTM | GRU, place: str, x: str, shape: Shape) -> str:
    """Write the operator of the same name, which takes (T, N, D) and returns (T, directions, N, H)."""
    kind = next(kind for kind in (RNN, LSTM, GRU) if isinstance(layer, kind))
    weights = [_rows_by_gate(layer, kind, array)[None] for array in (layer.Wx, layer.Wh)]
    biases = numpy.concatenate([_rows_by_gate(layer, kind, array) for array in (layer.bx, layer.bh)])[None]
    names = [graph.constant(f"{place}.{key}", array) for key, array in zip("WRB", (*weights, biases), strict=True)]
    more = {"linear_before_reset": 1} if kind is GRU else {}
    x = graph.node("Transpose", place, x, perm=[1, 0, 2])
    y = graph.node(kind.__name__, place, x, *names, hidden_size=layer.hidden, **more)
    y = graph.node("Squeeze", place, y, graph.constant(f"{place}.directions", [1]))
    return graph.node("Transpose", place, y, perm=[1, 0, 2])


def _rows_by_gate(layer: RNN | LSTM | GRU, kind: type[Layer], array: Array) -> numpy.ndarray:
    """Return the transpose of weights (…, gates·H), or biases, with the gates in ONNX's order."""
    parts = numpy.split(asnumpy(array).T, layer.gates)
    return numpy.concatenate([parts[gate] for gate in GATES[kind]])
