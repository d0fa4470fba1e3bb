"""Export networks to ONNX, the format of onnxruntime and many other programs; by the package ``onnx``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy

from backend.checks import instance
from training.files import json_text
from training.files.durable import write_atomically
from training.interop import onnx_attention, onnx_sequences  # noqa: F401  (register their layers)
from training.interop.onnx_graph import Graph
from training.loop.recipe import normalization_of, target_normalization_of
from training.models.network import Network

OPSET, IR = 17, 8
"""The version of the operators, and that of the format that belongs to it."""


def to_onnx(network: Network) -> Any:
    """Return a network as an ``onnx.ModelProto``: in float32 and evaluation, for batches of any size.

    Its input ``x`` is (batch, *input_dim): as the network's training data were before they were normalized, pictures in
    0 … 1; or int64 indices where the first layer is an embedding. The mean and standard deviation of the training data,
    which the network's ``config`` has, are in the graph.
    Its output is ``scores`` (batch, *output_dim), before a softmax or sigmoid; of a network that predicts numbers
    ``values``, in their own unit. The metadata have the name, the classes, and whether "classes", "labels" or "values"
    are predicted.

    Raises:
        ModuleNotFoundError: the package ``onnx`` is not installed.
        ValueError: a layer has no counterpart in ONNX; the message names it.
    """
    instance("network", network, Network, "a Network")
    onnx = package()
    graph, x = Graph(onnx), "x"
    shape = network.input_dim
    known = normalization_of(network)
    if known is not None:
        mean, std = (_over(numbers, shape) for numbers in (known.mean, known.std))
        x = graph.node("Sub", "input", x, graph.constant("input.mean", mean))
        x = graph.node("Div", "input", x, graph.constant("input.std", std))
    y = graph.layer(network.layers, "", x, shape)
    of_targets = target_normalization_of(network)
    if of_targets is not None:
        y = graph.node("Mul", "output", y, graph.constant("output.std", numpy.asarray(of_targets.std)))
        y = graph.node("Add", "output", y, graph.constant("output.mean", numpy.asarray(of_targets.mean)))
    name = "values" if network.last_layer.target_kind == "values" else "scores"
    graph.nodes.append(onnx.helper.make_node("Identity", [y], [name], name))
    return _model(onnx, network, graph, name)


def export_onnx(network: Network, file: str | Path) -> None:
    """Write ``to_onnx(network)`` to a file, atomically, after ``onnx.checker`` has checked it; errors as of that."""
    onnx = package()
    model = to_onnx(network)
    onnx.checker.check_model(model, full_check=True)
    write_atomically(Path(file), model.SerializeToString())


def package() -> Any:
    """Return the package ``onnx``, or raise a ModuleNotFoundError with the remedy."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise ModuleNotFoundError(
            "ONNX needs the package onnx; remedy: pip install 'xpnet[onnx]'", name="onnx"
        ) from None
    return onnx


def _model(onnx: Any, network: Network, graph: Graph, name: str) -> Any:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    of_inputs = onnx.TensorProto.INT64 if network.takes_indices else kind
    made = helper.make_graph(
        graph.nodes,
        network.title,
        [helper.make_tensor_value_info("x", of_inputs, ["batch", *network.input_dim])],
        [helper.make_tensor_value_info(name, kind, ["batch", *network.output_dim])],
        [onnx.numpy_helper.from_array(array, key) for key, array in graph.constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="xpnet")
    model.ir_version = IR
    config = network.config or {}
    about = {"name": network.title, "target_kind": network.last_layer.target_kind}
    about |= {key: json_text.dump(config[key]) for key in ("classes", "columns", "target", "dataset") if key in config}
    helper.set_model_props(model, about)
    return model


def _over(numbers: tuple[float, ...], shape: tuple[int, ...]) -> numpy.ndarray:
    """Return a number for each channel of images, or for each column, as an array that fits inputs of a shape."""
    array = numpy.asarray(numbers, "float32")
    if len(shape) == 3:
        return array.reshape(1, -1, 1, 1)
    return numpy.repeat(array, math.prod(shape) // len(array)).reshape(1, *shape)  # images as rows: each pixel's
