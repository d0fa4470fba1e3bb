"""The nodes and constants of an ONNX graph, as its import reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy

from backend import asarray
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from layers.base import Shape
from training.files import clipped
from training.interop.onnx_model import Input

FOLDED = frozenset(("Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"))
"""Operators that are computed where all they are given is constant.

None makes more numbers than it is given, save Gather, whose indices are given.
"""

BATCH = -(1 << 30)
"""What ``Shape`` says of the batch axis: a number that no size is, and that int32, int64 and floats hold exactly."""

_MOST_MADE = 1 << 27
"""The most numbers that the nodes of a graph may make which can make more than the file holds, all together."""


@dataclass(frozen=True)
class Node:
    """An operator of a graph.

    Attributes:
        kind: the operator, as in "Conv".
        title: what errors call it: its name, or else that of its first output, and the operator.
        inputs, outputs: names of values; an input that is left out is "".
        attributes: by name; texts as ``str``.
        proto: the node itself.
    """

    kind: str
    title: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    proto: Any

    @classmethod
    def of(cls, onnx: Any, proto: Any) -> Node:
        """Return a node of the package ``onnx``; an operator of another domain is called "domain.operator"."""
        kind = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
        name = proto.name or next(filter(None, proto.output), "")
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in proto.attribute}
        for key, value in attributes.items():
            if isinstance(value, bytes):
                attributes[key] = value.decode(errors="replace")
        return cls(kind, f"{clipped(name)}, {kind}", tuple(proto.input), tuple(proto.output), attributes, proto)


class Constants:
    """The arrays of a graph by name: initializers, and what some operators make of constants alone.

    Args:
        onnx: the package.
        graph: its ``GraphProto``.
        opset: the version of the operators.
    """

    def __init__(self, onnx: Any, graph: Any, opset: int) -> None:
        self._onnx = onnx
        self._opset = opset
        self._arrays = {tensor.name: self._array(tensor) for tensor in graph.initializer}
        self._batched: set[str] = set()
        self._made = 0

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def get(self, name: str) -> numpy.ndarray | None:
        """Return the array of that name, or None."""
        return self._arrays.get(name)

    def holds_batch(self, name: str) -> bool:
        """Return whether the array of that name is made of a shape, and ``BATCH`` is in it."""
        return name in self._batched

    def refuse_batch(self, names: Iterable[str]) -> None:
        """Raise a ValueError if one of the inputs ``names`` of a node holds the size of the batch."""
        if any(map(self.holds_batch, names)):
            raise ValueError(
                "it computes with the size of the batch, which only the shape of a Reshape, Expand or ConstantOfShape "
                "may have in it; layers compute with each sample alone"
            )

    def fold(self, node: Node, shapes: dict[str, Shape]) -> bool:
        """Compute a node whose outputs are constant; return whether they are.

        Args:
            shapes: the shapes of values that are not constant, with ``BATCH`` for the batch.

        Raises:
            ValueError: it computes with the size of the batch.
        """
        if node.kind == "Constant":
            self._arrays[node.outputs[0]] = self._value(node)
        elif node.kind == "Shape" and node.inputs[0] in shapes:
            sizes = numpy.array(shapes[node.inputs[0]])
            begin, end = node.attributes.get("start", 0), node.attributes.get("end", len(sizes))
            self._arrays[node.outputs[0]] = sizes[begin:end]
            self._mark(node)
        elif node.kind in FOLDED and all(name in self._arrays for name in node.inputs if name):
            self.refuse_batch(() if node.kind == "Concat" else node.inputs[1:])
            self._arrays[node.outputs[0]] = self._computed(node)
            if any(map(self.holds_batch, node.inputs)):
                self._mark(node)
        elif node.kind in ("ConstantOfShape", "Expand") and all(name in self._arrays for name in node.inputs):
            self.refuse_batch(node.inputs[:-1])
            self._arrays[node.outputs[0]] = self._of_shape(node)
        else:
            return False
        return True

    def _mark(self, node: Node) -> None:
        """Note whether what a node has made of a shape has the batch in it."""
        made = self._arrays[node.outputs[0]]
        if node.kind == "Cast" and (made == BATCH).sum() != (self._arrays[node.inputs[0]] == BATCH).sum():
            self.refuse_batch(node.inputs)
        if (made == BATCH).any():
            self._batched.add(node.outputs[0])

    def _of_shape(self, node: Node) -> numpy.ndarray:
        """Return numbers that are repeated along a shape, the same for each sample: the batch is an axis of 1."""
        *given, wanted = (self._arrays[name] for name in node.inputs)
        sizes = tuple(1 if size == BATCH else int(size) for size in wanted.reshape(-1))
        if min(sizes, default=1) < 0:
            raise ValueError(f"expected a shape of sizes, got {clipped(sizes)}")
        if given:
            sizes = numpy.broadcast_shapes(given[0].shape, sizes)
        self._count(math.prod(sizes))
        if given:
            return numpy.broadcast_to(given[0], sizes)
        value = node.attributes.get("value")
        return numpy.full(sizes, numpy.float32(0) if value is None else self._array(value).reshape(()))

    def _count(self, numbers: int) -> None:
        """Add to the numbers that nodes have made; a ValueError where they would be too many."""
        self._made += numbers
        if self._made > _MOST_MADE:
            raise ValueError(f"the constants of the nodes would be more than {_MOST_MADE:,} numbers")

    def _computed(self, node: Node) -> numpy.ndarray:
        given = {name: self._arrays[name] for name in node.inputs if name}
        if node.kind == "Concat":
            self._count(sum(self._arrays[name].size for name in node.inputs))
        elif node.kind == "Gather":
            data, indices = (self._arrays[name] for name in node.inputs)
            self._count(indices.size * data.size // max(1, data.shape[node.attributes.get("axis", 0)]))
        return evaluated(node, given, self._opset)[0]

    def _array(self, tensor: Any) -> numpy.ndarray:
        try:
            return self._onnx.numpy_helper.to_array(tensor)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the constant {clipped(tensor.name)} is damaged: {error}") from error

    def _value(self, node: Node) -> numpy.ndarray:
        if "value" in node.attributes:
            return self._array(node.attributes["value"])
        for key, dtype in (("value_float", "f4"), ("value_floats", "f4"), ("value_int", "i8"), ("value_ints", "i8")):
            if key in node.attributes:
                return numpy.asarray(node.attributes[key], dtype)
        raise ValueError("its constant is neither a dense tensor nor numbers")


def evaluated(node: Node, given: dict[str, numpy.ndarray], opset: int) -> list[numpy.ndarray]:
    """Return the outputs of a node for its inputs by name, as ONNX's reference computes them."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    graph = onnx.GraphProto(name="node", node=[node.proto])
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in given)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.outputs)
    return [*map(numpy.asarray, ReferenceEvaluator(graph, opsets={"": opset}).run(None, given))]


@dataclass
class Reading:
    """A node with one input that is not constant, as a reader of operators sees it.

    Attributes:
        node: the operator.
        shape: of a sample of that input, without the batch axis.
        arrays: its constant inputs by index.
        opset: the version of the operators.
        input: of the model, whose dtype the network has.
    """

    node: Node
    shape: Shape
    arrays: dict[int, numpy.ndarray]
    opset: int
    input: Input

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute of the node, or what it is by default."""
        return self.node.attributes.get(name, default)

    def real(self, name: str, default: float) -> float:
        """Return an attribute that is a number, float32 in ONNX, as it was written: 0.9, not 0.8999999761581421."""
        return shortest(self.attribute(name, default))

    def numbers(self, name: str, default: list[int]) -> list[int]:
        """Return an attribute of as many whole numbers as ``default`` has.

        Raises:
            ValueError: it has more or fewer.
        """
        found = list(self.attribute(name, default))
        if len(found) != len(default):
            raise ValueError(f"expected {len(default)} numbers as {name}, got {clipped(found)}")
        return found

    def array(self, index: int, what: str) -> numpy.ndarray:
        """Return a constant input.

        Raises:
            ValueError: it is none; the message calls it ``what``.
        """
        if index not in self.arrays:
            raise ValueError(f"expected {what} as a constant, input {index + 1} of the node")
        return self.arrays[index]

    def optional(self, index: int, what: str) -> numpy.ndarray | None:
        """Return a constant input, or None where it is left out."""
        is_given = index < len(self.node.inputs) and self.node.inputs[index]
        return self.array(index, what) if is_given else None

    def number(self, index: int, what: str) -> float | None:
        """Return a constant input of one number, or None where it is left out."""
        array = self.optional(index, what)
        if array is not None and array.size != 1:
            raise ValueError(f"expected one number as {what}, got an array {array.shape}")
        if array is None or array.dtype != numpy.float32:
            return None if array is None else array.item()
        return shortest(array.item())

    def first(self, what: str) -> None:
        """Check that the input that is not constant is the first; ``what`` says what that is."""
        if 0 in self.arrays:
            raise ValueError(f"expected a constant as its second input, and {what} as its first")

    def parameter(self, array: numpy.ndarray) -> Array:
        """Return an array of a layer's own, in the dtype of the network and on the active device."""
        return _on_device(array, self.input.dtype)

    def statistic(self, array: numpy.ndarray) -> Array:
        """Return a running statistic of a layer's own: as ``parameter``, but float32 where that is float16."""
        return _on_device(array, acc_dtype(self.input.dtype))


def shortest(number: float) -> float:
    """Return the number with the fewest digits that is the same in float32."""
    return float(str(numpy.float32(number)))


def _on_device(array: numpy.ndarray, dtype: Any) -> Array:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"expected weights as numbers, got {array.dtype}")
    return asarray(numpy.array(array, dtype, order="C"))
