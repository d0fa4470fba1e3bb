"""Import networks from ONNX, as onnxruntime and many other programs write it; by the package ``onnx``.

A graph of one input and one output becomes a ``Sequential`` of xpnet's layers, whose parameters are trained as any
others. Sums of two branches become ``Residual``, a value beside what is made of it ``Skip``, products and a softmax
``MultiHeadAttention``. Operators with constants, such as the normalization of inputs, become part of the layer before
them where they can, else a depthwise 1×1 convolution.
"""

from __future__ import annotations

from typing import Any

from layers import Layer, Loss, Sequential
from layers.base import Shape
from training.files import clipped, json_text
from training.interop import onnx_images  # noqa: F401  (it registers operators)
from training.interop.onnx_branches import Branches, Value, joined_shape, parting
from training.interop.onnx_export import package
from training.interop.onnx_functions import recognized
from training.interop.onnx_heads import attention
from training.interop.onnx_loss import with_loss
from training.interop.onnx_model import damage_in_words, input_of, opened, opset_of
from training.interop.onnx_operators import READERS
from training.interop.onnx_reading import Constants, Node, Reading
from training.interop.onnx_steps import RECURRENT, full_shape, of_steps
from training.interop.onnx_tidy import Item
from training.models.config import check_data
from training.models.network import Network

_KEPT = ("name", "classes", "columns", "target", "dataset")
"""The metadata of xpnet's own models that a network's config has."""

_LOSSES = {"classes": "softmax", "labels": "sigmoid", "values": "mean-squared"}
"""The usual loss for what a network predicts."""


def from_onnx(
    model: Any, loss: str | Loss | None = None, shape: Shape | None = None, output: str | None = None
) -> Network:
    """Return the network of an ONNX model, on the active device and with the dtype of its input.

    It computes what the model does in evaluation, and can be trained: batch normalizations and dropouts are layers
    again, if the model has them. A softmax over the classes or a sigmoid at the end is left out where the loss computes
    it: ``predict`` returns the scores before it, as of any network. Of a model that ``export_onnx`` wrote, the name and
    the classes are in ``config``. The network takes what the model takes: inputs are not to be normalized before, if
    the model does that itself.

    Args:
        model: a file's name, or an ``onnx.ModelProto``.
        loss: as for ``Network``; by default softmax, sigmoid for a model that ends in one, or for another single
            output mean-squared. Of xpnet's own models it is the usual one for what they predict: softmax, sigmoid for
            several labels, mean-squared for numbers.
        shape: of a sample, where the model leaves sizes besides the batch open.
        output: name of the value to end at, such as the scores before a softmax; by default the model's only output.

    Raises:
        ModuleNotFoundError: the package ``onnx`` is not installed.
        TypeError: an argument is of another kind.
        ValueError: the file is damaged, a node has no layers (the message names it and says why), the output is not one
            that the loss takes, or the model is only the softmax or sigmoid of the loss.
        OSError: the file cannot be read.

    Examples:
        >>> from layers import Affine, Relu, Sequential
        >>> from training import Network
        >>> from training.interop.onnx_export import to_onnx
        >>> from training.interop.onnx_import import from_onnx
        >>> model = to_onnx(Network(Sequential(Affine.of(4, 8), Relu(), Affine.of(8, 3)), (4,)))
        >>> list(from_onnx(model).layers.layers)
        ['Affine1', 'Relu1', 'Affine2']
    """
    with damage_in_words():
        graph = _Graph(model, shape, output)
        layers, config, usual = graph.layers(), graph.config(), graph.usual_loss()
    layers, loss = with_loss(layers, graph.shape, loss, usual)
    network = Network(layers, graph.shape, config or None, loss)
    check_data(config, network.input_dim, network.classes)
    return network


def layers_from_onnx(model: Any, shape: Shape | None = None, output: str | None = None) -> Sequential:
    """Return the layers of an ONNX model, whose output may have any shape; arguments and errors as of ``from_onnx``."""
    with damage_in_words():
        return _Graph(model, shape, output).layers()


class _Graph:
    """A model's graph from its input to one output."""

    def __init__(self, model: Any, shape: Shape | None, output: str | None) -> None:
        self._onnx = onnx = package()
        self._model = opened(onnx, model)
        graph = self._model.graph
        self._opset = opset_of(self._model)
        self._constants = Constants(onnx, graph, self._opset)
        self._input = input_of(onnx, graph, shape)
        self._nodes = [Node.of(onnx, node) for node in graph.node]
        self._by_value = {name: node for node in self._nodes for name in node.outputs}
        self._output = self._only_output(graph, output)
        self._start = Value(self._input.name, "the input", self.shape)
        self._values = {self._start.name: self._start}

    def layers(self) -> Sequential:
        """Return the layers; errors as of ``from_onnx``."""
        for node in self._needed():
            self._read(node)
        end = self._values.get(self._output)
        if end is None:
            raise ValueError(
                f"the output {clipped(self._output)} does not depend on the input {clipped(self._start.name)}"
            )
        if end.problem:
            raise ValueError(end.problem)
        if end.layout:
            raise ValueError(f"the node {end.title}: it moves the batch to another axis")
        return Sequential(*Branches(self._input.dtype.name).path(self._start, end))

    def config(self) -> dict[str, Any]:
        """Return what an export of xpnet's says of the network; nothing of others."""
        found = {key: text for key, text in self._about.items() if key in _KEPT}
        return {key: text if key == "name" else json_text.parse(text) for key, text in found.items()}

    def usual_loss(self) -> str | None:
        """Return the loss for what an export of xpnet's predicts; None of others."""
        return _LOSSES.get(self._about.get("target_kind", ""))

    @property
    def shape(self) -> Shape:
        """The shape of a sample of the input."""
        return self._input.shape

    @property
    def _about(self) -> dict[str, str]:
        is_own = self._model.producer_name == "xpnet"
        return {prop.key: prop.value for prop in self._model.metadata_props} if is_own else {}

    def _only_output(self, graph: Any, output: str | None) -> str:
        names = [each.name for each in graph.output]
        if output is None:
            if len(names) != 1:
                raise ValueError(f"expected output=, one of {', '.join(map(clipped, names[:10]))}")
            return names[0]
        if output not in self._by_value:
            raise ValueError(
                f"the model has no value {clipped(output)}; its outputs are {', '.join(map(clipped, names))}"
            )
        return output

    def _needed(self) -> list[Node]:
        """Return the nodes that the output depends on, in the order of the graph, where each follows its inputs."""
        waiting, needed = [self._output], set()
        while waiting:
            name = waiting.pop()
            if name in self._by_value and name not in needed:
                needed.add(name)
                waiting += self._by_value[name].inputs
        return [node for node in self._nodes if needed.intersection(node.outputs)]

    def _read(self, node: Node) -> None:
        """Add the values that a node makes."""
        try:
            shapes = {name: full_shape(self._values[name]) for name in node.inputs if name in self._values}
            if self._constants.fold(node, shapes):
                return
        except (ValueError, IndexError, TypeError) as error:
            raise ValueError(f"the node {node.title}: {error}") from error
        for index, name in enumerate(node.outputs):
            if name:
                self._values[name] = self._value(node, index)

    def _value(self, node: Node, index: int) -> Value:
        unknown = [name for name in node.inputs if name and name not in self._values and name not in self._constants]
        if unknown:
            raise ValueError(f"the node {node.title}: nothing before it makes its input {clipped(unknown[0])}")
        sources = [self._values[name] for name in node.inputs if name in self._values]
        if not sources:
            raise ValueError(f"the node {node.title}: xpnet computes no constants by {node.kind}")
        start = sources[0]
        for other in sources[1:]:
            start = parting(start, other)
        name = node.outputs[index]
        if node.kind == "MatMul" and len(sources) == 2:
            parameter = self._reading(node, start.shape).parameter
            found = attention(node, start, self._by_value, self._constants, self._opset, parameter)
            if found is not None:
                value = Value(name, node.title, found[0].shape, found[0])
                self._add(value, found[1])
                return value
        value = Value(name, node.title, start.shape, start)
        try:
            self._constants.refuse_batch(node.inputs[:1] if node.kind == "Reshape" else node.inputs)
            self._fill(value, node, index, sources)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            value.problem = f"the node {node.title}: {error}"
        return value

    def _fill(self, value: Value, node: Node, index: int, sources: list[Value]) -> None:
        """Say how a value is computed from others.

        Raises:
            ValueError: why it is not.
        """
        start = value.dominator
        assert start is not None
        if node.kind == "Mul" and len(sources) == 2 and not (start.problem or start.layout):
            value.items = recognized(start.name, node.outputs[0], start.shape, self._by_value, self._constants)
            if value.items:
                return
        problem = next((source.problem for source in sources if source.problem), "")
        if problem:
            value.problem = problem
        elif index:
            raise ValueError(f"its output {index + 1} is used; layers have one")
        elif len(sources) > 1 and any(source.layout for source in sources):
            raise ValueError("an input has the steps of sequences before the batch; layers take the batch first")
        elif self._start in sources and self._input.has_indices and node.kind != "Gather":
            raise ValueError("the input of the model are indices, which only Gather takes")
        elif len(sources) == 1 and (read := of_steps(self._reading(node, start.shape), start.layout)) is not None:
            items, value.layout = read
            self._add(value, items)
        elif node.kind in ("Add", "Sum") and len(sources) == len(node.inputs) == 2:
            if sources[0].shape != sources[1].shape:
                raise ValueError(f"it adds samples of {sources[0].shape} and {sources[1].shape}")
            value.branches, value.shape = (sources[0], sources[1]), sources[0].shape
        elif node.kind == "Concat" and len(sources) == len(node.inputs) == 2:
            value.beside, value.shape = sources[1], joined_shape(node, *sources)
            if sources[0] is not start:
                raise ValueError("expected a value and then what is made of it, side by side; xpnet joins no others")
        elif node.kind not in READERS:
            known = sorted([*READERS, *RECURRENT, "Concat", "Constant"])
            raise ValueError(f"xpnet has no layer for it; it imports {', '.join(known)}")
        elif len(sources) > 1:
            raise ValueError(
                "expected one input that is not constant; only Add, Sum and Concat have two, of branches that "
                "part before"
            )
        else:
            self._add(value, READERS[node.kind](self._reading(node, start.shape)))

    @staticmethod
    def _add(value: Value, items: list[Item]) -> None:
        value.items = items
        for item in items:
            value.shape = item.output_shape(value.shape) if isinstance(item, Layer) else value.shape

    def _reading(self, node: Node, shape: Shape) -> Reading:
        arrays = {i: array for i, name in enumerate(node.inputs) if (array := self._constants.get(name)) is not None}
        return Reading(node, shape, arrays, self._opset, self._input)
