"""Recognize attention, which a graph writes as products and a softmax, by the numbers that these compute.

softmax(scale·q·kᵀ + mask)·v is ``layers.MultiHeadAttention`` before its last product, where q, k and v (N, heads, T,
size / heads) are products of each position (N, T, size) with matrices, however the graph cuts and turns these. The
matrices are found by giving the graph rows of the identity as positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy

from backend.types import Array
from layers import MultiHeadAttention, Permute, Reshape
from training.interop.onnx_branches import Value
from training.interop.onnx_reading import BATCH, Constants, Node, evaluated
from training.interop.onnx_tidy import Item

_ARITHMETIC = ("Add", "Div", "Mul", "Sub", "Where")
_OPERATORS = frozenset(
    (*_ARITHMETIC, "Gather", "Identity", "MatMul", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
)
_MOST_NODES = 100
_MOST_NUMBERS = 1 << 26
"""Of a value of the graph, while it is computed."""

_HIDDEN = -1e4
"""What is added to scores that are hidden, or less: a number from -10,000 on down, or -infinity."""


def attention(
    end: Node,
    start: Value,
    nodes: Mapping[str, Node],
    constants: Constants,
    opset: int,
    parameter: Callable[..., Array],
) -> tuple[Value, list[Item]] | None:
    """Return the layers that compute the output of ``end``, a product with a softmax, and of which value.

    Args:
        end: a ``MatMul`` of two values.
        start: the value where their branches part.
        nodes: the node of each value.
        opset: the version of the operators.
        parameter: makes an array a layer's own.

    Returns:
        That value, (T, size), and layers from it to (heads, T, size / heads); None where it is no attention, or one
        with another mask than that of later positions.
    """
    softmax = nodes.get(end.inputs[0])
    if softmax is None or softmax.kind != "Softmax":
        return None
    if softmax.attributes.get("axis", -1 if opset >= 13 else 1) not in (-1, 3):
        return None
    scores, value = softmax.inputs[0], end.inputs[1]
    product = _product_of(scores, nodes, constants)
    if product is None:
        return None
    query, key = product.inputs
    try:
        with numpy.errstate(all="ignore"):
            return _Heads(start, nodes, constants, opset, (query, key, value, scores)).layers(parameter)
    except _NotAttentionError:
        return None


class _NotAttentionError(Exception):
    """The graph computes something else."""


def _product_of(scores: str, nodes: Mapping[str, Node], constants: Constants) -> Node | None:
    """Return the product of two values before scalings and masks."""
    while (node := nodes.get(scores)) is not None and node.kind in (*_ARITHMETIC, "Identity"):
        varying = [name for name in node.inputs if name not in constants]
        if len(varying) != 1:
            return None
        scores = varying[0]
    is_product = node is not None and node.kind == "MatMul" and not any(name in constants for name in node.inputs)
    return node if is_product else None


class _Heads:
    """Values of a graph: queries, transposed keys, values and scores, as functions of the value where they begin."""

    def __init__(
        self, start: Value, nodes: Mapping[str, Node], constants: Constants, opset: int, names: tuple[str, ...]
    ) -> None:
        self._start, self._nodes, self._constants = start, nodes, constants
        self._opset, self._names = opset, names

    def layers(self, parameter: Callable[..., Array]) -> tuple[Value, list[Item]]:
        """Return what ``attention`` does, or raise that it is none."""
        while self._start.problem or self._start.layout:
            self._step_back()
        found = self._computed(numpy.zeros((1, *self._start.shape)))
        if any(array.ndim != 4 or len(array) != 1 for array in found):
            raise _NotAttentionError
        _, heads, length, size = found[0].shape
        own, turned = (1, heads, length, size), (1, heads, size, length)
        if not length or [array.shape for array in found[:3]] != [own, turned, own]:
            raise _NotAttentionError
        while self._start.shape != (length, heads * size) or self._start.problem or self._start.layout:
            self._step_back()
        weight, bias = self._products(length, heads * size)
        factor, causal = self._factor_and_mask(length, heads * size)
        factor = float(f"{factor * math.sqrt(size):.6g}")  # float32 constants multiply to almost 1
        weight[:, : heads * size] *= factor
        bias[: heads * size] *= factor
        identity, zeros = numpy.eye(heads * size), numpy.zeros(heads * size)
        w_in, b_in, w_out, b_out = map(parameter, (weight, bias, identity, zeros))
        layer = MultiHeadAttention(w_in, b_in, w_out, b_out, heads, causal)
        return self._start, [layer, Reshape((length, heads, size)), Permute((2, 1, 3))]

    def _step_back(self) -> None:
        """Begin at the value before."""
        if self._start.dominator is None:
            raise _NotAttentionError
        self._start = self._start.dominator

    def _products(self, length: int, features: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return matrix and bias of queries, keys and values, (features, 3·features) and (3·features,)."""
        given = numpy.zeros((1, length, features))
        bias, rows = self._projected(given)[0], []
        for first in range(0, features, length):
            given[...] = 0
            count = min(length, features - first)
            given[0, :count, first : first + count] = numpy.eye(count)
            rows.append(self._projected(given)[:count])
        weight = numpy.concatenate(rows) - bias
        # Any sequence has to give what its positions do, each by itself.
        given = _any_sequence(length, features)
        projected = self._projected(given)
        if not numpy.allclose(projected, given[0] @ weight + bias, rtol=1e-6, atol=1e-6 * abs(projected).max()):
            raise _NotAttentionError
        return weight, bias

    def _projected(self, given: numpy.ndarray) -> numpy.ndarray:
        """Return queries, keys and values of a sequence side by side, (T, 3·features)."""
        query, key, value, _ = self._computed(given)
        stacked = numpy.stack([query[0], key[0].swapaxes(1, 2), value[0]])  # 3, heads, T, size
        return stacked.transpose(2, 0, 1, 3).reshape(given.shape[1], -1)

    def _factor_and_mask(self, length: int, features: int) -> tuple[float, bool]:
        """Return the factor of the products in scores, and whether those with later positions are hidden."""
        query, key, _, scores = self._computed(_any_sequence(length, features))
        products, seen = query @ key, numpy.tri(length, dtype=bool)
        place = abs(numpy.where(seen, products, 0)).argmax()
        factor = float(scores.flat[place] / products.flat[place])
        rest = scores - factor * products
        shown = abs(rest) <= 1e-6 * abs(factor * products).max()
        if shown.all():
            return factor, False
        if (shown == seen).all() and (rest[..., ~seen] <= _HIDDEN).all():
            return factor, True
        raise _NotAttentionError

    def _computed(self, given: numpy.ndarray) -> list[numpy.ndarray]:
        """Return the values for one sample at the beginning, in float64."""
        known: dict[str, numpy.ndarray] = {self._start.name: given}
        waiting, seen = [*self._names], 0
        while waiting:
            name = waiting[-1]
            if name in known:
                waiting.pop()
                continue
            seen += 1
            if name in self._constants:
                known[name] = self._constant(name)
                continue
            node = self._nodes.get(name)
            if node is None or node.kind not in _OPERATORS or seen > 4 * _MOST_NODES:
                raise _NotAttentionError
            missing = [each for each in node.inputs if each and each not in known]
            waiting += missing
            if not missing:
                known |= _outputs(node, {each: known[each] for each in node.inputs if each}, self._opset)
        return [known[name] for name in self._names]

    def _constant(self, name: str) -> numpy.ndarray:
        array: Any = self._constants.get(name)
        if array.dtype.kind == "f":
            return array.astype("float64")
        return numpy.where(array == BATCH, 1, array) if self._constants.holds_batch(name) else array


def _any_sequence(length: int, features: int) -> numpy.ndarray:
    return numpy.random.default_rng(0).standard_normal((1, length, features))


def _outputs(node: Node, given: dict[str, numpy.ndarray], opset: int) -> dict[str, numpy.ndarray]:
    """Return the outputs of a node by name."""
    try:
        if _numbers_made(node, [given[name] for name in node.inputs if name]) > _MOST_NUMBERS:
            raise _NotAttentionError
        return dict(zip(node.outputs, evaluated(node, given, opset), strict=True))
    except Exception as error:  # whatever the package raises for shapes that do not fit
        raise _NotAttentionError from error


def _numbers_made(node: Node, given: list[numpy.ndarray]) -> int:
    shapes: list[Iterable[int]] = [array.shape for array in given]
    if node.kind in _ARITHMETIC:
        return math.prod(numpy.broadcast_shapes(*shapes))  # type: ignore[arg-type]
    if node.kind == "MatMul":
        a, b = given
        return (
            math.prod(numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2])) * a.size * b.shape[-1] // max(a.shape[-1], 1)
        )
    if node.kind == "Gather":
        data, indices = given
        return indices.size * data.size
    return sum(array.size for array in given)
