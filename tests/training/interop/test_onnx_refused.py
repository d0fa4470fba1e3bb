"""Graphs that compute with the size of the batch, or whose attributes contradict: one error that names the node."""

import importlib.util

import numpy as np
import pytest

from layers import LSTM, Affine, Flatten, Sequential
from tests.support.command_line import xpnet
from training.interop import onnx_reading
from training.interop.onnx_export import to_onnx
from training.interop.onnx_import import layers_from_onnx
from training.models import Network

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
if HAS_ONNX:
    import onnx

    from tests.training.interop.test_onnx_graphs import assert_as_onnxruntime, model, of, vector

pytestmark = pytest.mark.skipif(
    not HAS_ONNX, reason="onnx and onnxruntime, which it is compared with, are not installed"
)

SIZE = [("Shape", ["x"], {}), ("Cast", ["."], {"to": 1}), ("Gather", [".", "zero"], {})]
INDEX = [("Shape", ["x"], {}), ("Gather", [".", "zero"], {})]
CONSTANTS = {
    "zero": np.int64(0),
    "first": vector(0),
    "rest": vector(-1),
    "table": np.ones((5, 3), "float32"),
    "three": vector(3),
    "one": vector(1),
}

BY_BATCH = {
    "divided": ((2, 3), [*SIZE, ("Div", ["x", "."], {})], "'node3', Div"),
    "times": ((2, 3), [*SIZE, ("Mul", ["x", "."], {})], "'node3', Mul"),
    "plus": ((2, 3), [*SIZE, ("Add", [".", "x"], {})], "'node3', Add"),
    "an index": ((2, 3), [*INDEX, ("Gather", ["table", "."], {}), ("Add", ["x", "."], {})], "'node2', Gather"),
    "repeated": ((3,), [*SIZE, ("Shape", ["x"], {}), ("Expand", ["2", "."], {}), ("Add", ["x", "."], {})], "Expand"),
    "its sign": ((3,), [("Shape", ["x"], {}), ("Cast", ["."], {"to": 9}), ("Cast", ["."], {"to": 1}),
                        ("Mul", ["x", "."], {})], "'node1', Cast"),
    "another constant's shape": (
        (5, 3),
        [*INDEX, ("Unsqueeze", [".", "first"], {}), ("Concat", [".", "rest"], {"axis": 0}),
         ("Reshape", ["table", "."], {}), ("Add", ["x", "."], {})],
        "'node4', Reshape",
    ),
    "part of a Gelu": (
        (3,), [*SIZE, ("Mul", ["x", "."], {}), ("Sigmoid", ["x"], {}), ("Mul", ["3", "."], {})], "'node3', Mul"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_BATCH)
def test_what_computes_with_the_batch_is_refused(case):
    shape, nodes, title = BY_BATCH[case]
    with pytest.raises(ValueError, match=f"^the node .*{title}: it computes with the size of the batch"):
        layers_from_onnx(model(shape, nodes, CONSTANTS))


def test_the_batch_in_another_place_of_a_shape_is_refused():
    """[-1, batch] would make the samples columns, though there are as many numbers."""
    nodes = [*INDEX, ("Unsqueeze", [".", "first"], {}), ("Concat", ["rest", "."], {"axis": 0})]
    with pytest.raises(ValueError, match=r"'node4', Reshape: the shape \[-1, the batch\] does not keep the batch"):
        layers_from_onnx(model((2, 3), [*nodes, ("Reshape", ["x", "."], {})], CONSTANTS))


BESIDE_THE_BATCH = {
    "by a size of the sample": [
        ("Shape", ["x"], {}),
        ("Cast", ["."], {"to": 1}),
        ("Gather", [".", "one"], {}),
        ("Div", ["x", "."], {}),
    ],
    "by the sizes behind the batch": [
        ("Shape", ["x"], {}),
        ("Slice", [".", "one", "three"], {}),
        ("Cast", ["."], {"to": 1}),
        ("Add", ["x", "."], {}),
    ],
    "a row of it": [
        ("Shape", ["x"], {}),
        ("Cast", ["."], {"to": 6}),
        ("Cast", ["."], {"to": 7}),
        ("Slice", [".", "first", "one"], {}),
        ("Concat", [".", "rest"], {"axis": 0}),
        ("Reshape", ["x", "."], {}),
    ],
}


@pytest.mark.parametrize("case", BESIDE_THE_BATCH)
def test_other_sizes_are_numbers(case):
    assert_as_onnxruntime(model((2, 2), BESIDE_THE_BATCH[case], CONSTANTS))


W, T = {"W": of(4, 3, 3, 3)} if HAS_ONNX else {}, {"W": of(3, 4, 3, 3)} if HAS_ONNX else {}
CONTRADICTIONS = {
    r"'node0', Conv: expected strides of 1 or more, got \[0, 0\]": ([("Conv", ["x", "W"], {"strides": [0, 0]})], W),
    r"'node0', Conv: expected strides of 1 or more, got \[-1, 1\]": ([("Conv", ["x", "W"], {"strides": [-1, 1]})], W),
    r"'node0', Conv: expected dilations of 1 or more": ([("Conv", ["x", "W"], {"dilations": [1, 0]})], W),
    r"'node0', ConvTranspose: expected strides of 1": ([("ConvTranspose", ["x", "W"], {"strides": [0, 1]})], T),
    r"'node0', MaxPool: expected strides of 1": ([("MaxPool", ["x"], {"kernel_shape": [2, 2], "strides": [0, 0]})], {}),
    r"'node0', AveragePool: expected strides of 1": (
        [("AveragePool", ["x"], {"kernel_shape": [2, 2], "strides": [1, 0]})], {}
    ),
    r"'node0', Conv: its kernel_shape is \(2, 2\), and that of W \(4, 3, 3, 3\) is \(3, 3\)": (
        [("Conv", ["x", "W"], {"kernel_shape": [2, 2]})], W
    ),
    r"'node0', ConvTranspose: its kernel_shape is \(3, 2\)": (
        [("ConvTranspose", ["x", "W"], {"kernel_shape": [3, 2]})], T
    ),
    r"'node0', Unsqueeze: expected axes of 6, each once, got \[1, 1\]": (
        [("Unsqueeze", ["x", "axes"], {})], {"axes": np.asarray([1, 1])}
    ),
    r"'node0', Unsqueeze: expected axes of 6, each once, got \[1, -5\]": (
        [("Unsqueeze", ["x", "axes"], {})], {"axes": np.asarray([1, -5])}
    ),
    r"'node0', Unsqueeze: expected axes of 5, each once, got \[9\]": (
        [("Unsqueeze", ["x", "axes"], {})], {"axes": np.asarray([9])}
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", CONTRADICTIONS)
def test_contradicting_attributes_are_refused(message, tmp_path):
    nodes, constants = CONTRADICTIONS[message]
    given = model((3, 8, 7), nodes, constants)
    with pytest.raises(ValueError, match=f"^the node {message}"):
        layers_from_onnx(given)


def test_the_command_names_the_file_and_the_node(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = model((3, 8, 7), [("Conv", ["x", "W"], {"strides": [0, 0]}), ("Flatten", ["."], {})], W)
    (tmp_path / "a.onnx").write_bytes(given.SerializeToString())
    result = xpnet("summary", "a.onnx")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: a.onnx: the node 'node0', Conv: expected strides of 1 or more, got [0, 0]\n"
    (tmp_path / "a.onnx").write_bytes(b"none")
    result = xpnet("summary", "a.onnx")
    assert result.err.startswith("Error: a.onnx is no ONNX model")


def recurrent():
    given = to_onnx(Network(Sequential(LSTM.of(3, 5), Flatten(), Affine.of(35, 2)), (7, 3)))
    node = next(node for node in given.graph.node if node.op_type == "LSTM")
    arrays = {each.name: each for each in given.graph.initializer}
    return given, node, arrays


def replace(tensor, array):
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def test_the_sizes_of_recurrent_layers_agree():
    given, node, _ = recurrent()
    next(each for each in node.attribute if each.name == "hidden_size").i = 4
    with pytest.raises(ValueError, match=r"LSTM: its hidden_size 4 does not fit W \(1, 20, 3\) and R \(1, 20, 5\)"):
        layers_from_onnx(given)
    for index, shape, message in (
        (1, (1, 16, 3), "hidden_size 5 does not fit W"),
        (2, (1, 24, 5), "hidden_size 5 does not fit W"),
        (3, (1, 39), "expected 40 numbers as B, got 39"),
    ):
        given, node, arrays = recurrent()
        replace(arrays[node.input[index]], np.ones(shape, "float32"))
        with pytest.raises(ValueError, match=f"LSTM: .*{message}"):
            layers_from_onnx(given)


DOUBLED = {
    "Concat": ([("Concat", ["c", "c"], {"axis": 0}), ("Concat", [".", "."], {"axis": 0})], 600),
    "Gather": ([("Gather", ["c", "rows"], {}), ("Gather", [".", "rows"], {})], 400),
    "Expand": ([("Relu", ["x"], {}), ("Expand", ["c", "s"], {})], 599),
    "ConstantOfShape": ([("Relu", ["x"], {}), ("ConstantOfShape", ["s"], {})], 599),
}


@pytest.mark.parametrize("kind", DOUBLED)
def test_small_files_make_few_numbers(kind, monkeypatch):
    """Nodes that make more than they are given would otherwise fill the memory."""
    nodes, most = DOUBLED[kind]
    monkeypatch.setattr(onnx_reading, "_MOST_MADE", most)
    constants = {"c": np.ones((3, 100), "float32"), "rows": vector(0, 1, 2, 0), "s": vector(2, 1, 3, 100)}
    given = model((4, 100), [*nodes, ("Add", ["x", "."], {})], constants)
    with pytest.raises(ValueError, match=f"'node1', {kind}: the constants of the nodes would be more than {most} numb"):
        layers_from_onnx(given)
