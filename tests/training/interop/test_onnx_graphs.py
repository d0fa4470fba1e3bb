"""Graphs of other programs, imported, compared with what onnxruntime computes of them; and those that are refused."""

import importlib.util

import numpy as np
import pytest

from layers import Dropout, Gelu, GlobalAveragePooling, LayerNormalization, Relu, Residual
from training.interop.onnx_import import from_onnx, layers_from_onnx

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
if HAS_ONNX:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.skipif(
    not HAS_ONNX, reason="onnx and onnxruntime, which it is compared with, are not installed"
)


def of(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype("float32")


def model(shape, nodes, constants=None, opset=17, batch="n", kind=None):
    """Return a model: nodes are (operator, inputs, attributes), and the output of each is the input of the next.

    An input "." is the output of the node before; "3" that of the fourth node, "x" the input of the graph.
    """
    made = []
    for number, (operator, inputs, attributes) in enumerate(nodes):
        before = str(number - 1) if number else "x"
        names = [before if name == "." else name for name in inputs]
        made.append(helper.make_node(operator, names, [str(number)], f"node{number}", **attributes))
    kind = kind or TensorProto.FLOAT
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info("x", kind, [batch, *shape])],
        [helper.make_tensor_value_info(str(len(nodes) - 1), kind, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    output = onnx.shape_inference.infer_shapes(made).graph.output[0]
    made.graph.output[0].type.tensor_type.shape.CopyFrom(output.type.tensor_type.shape)  # the checker wants one
    return made


def assert_as_onnxruntime(given, samples=3, **arguments):
    """Return the layers, whose outputs are onnxruntime's within 1e-5."""
    layers = layers_from_onnx(given, **arguments).eval()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    run = onnxruntime.InferenceSession(given.SerializeToString(), options, providers=["CPUExecutionProvider"])
    dims = given.graph.input[0].type.tensor_type.shape.dim
    shape = arguments.get("shape") or [dim.dim_value for dim in dims][1:]
    x = np.random.default_rng(1).standard_normal((samples, *shape)).astype("float32")
    (expected,) = run.run(None, {"x": x})
    found = layers.forward(x)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert float(abs(found - expected).max()) <= 1e-5 * max(1, float(abs(expected).max()))
    return layers


def arrays(**named):
    return {name: np.asarray(array) for name, array in named.items()}


def vector(*numbers):
    return np.asarray(numbers, "int64")


def number(value):
    return numpy_helper.from_array(np.full(1, value, "float32"))


GRAPHS = {
    "a matrix, then a bias": lambda: model(
        (4,), [("MatMul", ["x", "W"], {}), ("Add", ["b", "."], {})], {"W": of(4, 5), "b": of(5)}
    ),
    "rows of tokens": lambda: model(
        (6, 4), [("MatMul", ["x", "W"], {}), ("Add", [".", "b"], {}), ("Relu", ["."], {})], {"W": of(4, 5), "b": of(5)}
    ),
    "factors and positions of tokens": lambda: model(
        (6, 4),
        [
            ("Add", ["x", "positions"], {}),
            ("Relu", ["."], {}),
            ("Mul", [".", "c"], {}),
            ("MatMul", [".", "W"], {}),
            ("Mul", [".", "d"], {}),
            ("Sub", [".", "b"], {}),
            ("Mul", [".", "rows"], {}),
        ],
        {"positions": of(6, 4), "c": of(4), "W": of(4, 5), "d": of(5), "b": of(1, 1, 5), "rows": of(6, 1)},
    ),
    "a matrix for the last axis of images": lambda: model((2, 3, 4), [("MatMul", ["x", "W"], {})], {"W": of(4, 5)}),
    "gemm": lambda: model(
        (4,), [("Gemm", ["x", "W", "c"], {"transB": 1, "alpha": 0.5, "beta": 2.0})], {"W": of(5, 4), "c": of(1)}
    ),
    "flattened by its own batch": lambda: model(
        (2, 3, 4),
        [
            ("Shape", ["x"], {}),
            ("Gather", [".", "zero"], {"axis": 0}),
            ("Unsqueeze", [".", "first"], {}),
            ("Concat", [".", "rest"], {"axis": 0}),
            ("Reshape", ["x", "."], {}),
            ("Gemm", [".", "W"], {}),
        ],
        {"zero": np.int64(0), "first": vector(0), "rest": vector(-1), "W": of(24, 3)},
    ),
    "flattened by its own batch, opset 11": lambda: model(
        (2, 3, 4),
        [
            ("Shape", ["x"], {}),
            ("Gather", [".", "zero"], {"axis": 0}),
            ("Unsqueeze", [".", ], {"axes": [0]}),
            ("Concat", [".", "rest"], {"axis": 0}),
            ("Reshape", ["x", "."], {}),
        ],
        {"zero": np.int64(0), "rest": vector(-1)},
        opset=11,
    ),
    "transposed weights": lambda: model(
        (4,),
        [("Transpose", ["W"], {"perm": [1, 0]}), ("MatMul", ["x", "."], {})],
        {"W": of(5, 4)},
    ),
    "an image as tokens": lambda: model(
        (4, 3, 3),
        [
            ("Reshape", ["x", "tokens"], {}),
            ("Transpose", ["."], {"perm": [0, 2, 1]}),
            ("LayerNormalization", [".", "g", "b"], {"axis": -1, "epsilon": 1e-3}),
            ("MatMul", [".", "W"], {}),
            ("ReduceMean", ["."], {"axes": [1], "keepdims": 0}),
        ],
        {"tokens": vector(0, 4, -1), "g": of(4), "b": of(4), "W": of(4, 5)},
    ),
    "layer normalization of a part": lambda: model(
        (4, 3, 2), [("LayerNormalization", ["x", "g"], {"axis": 2})], {"g": of(3, 2)}
    ),
    "layer normalization of the last axis of images": lambda: model(
        (4, 3, 2), [("LayerNormalization", ["x", "g", "b"], {"axis": 3})], {"g": of(2), "b": of(2)}
    ),
    "rows of pixels": lambda: model(
        (3, 9),
        [
            ("Conv", ["x", "W", "b"], {"pads": [2, 1], "strides": [2], "dilations": [2], "group": 3}),
            ("MaxPool", ["."], {"kernel_shape": [2], "pads": [1, 0]}),
            ("BatchNormalization", [".", "g", "b", "m", "v"], {}),
            ("AveragePool", ["."], {"kernel_shape": [2], "count_include_pad": 1, "pads": [0, 1]}),
            ("ConvTranspose", [".", "T"], {"strides": [2], "pads": [1, 0]}),
            ("GlobalAveragePool", ["."], {}),
        ],
        {"W": of(6, 1, 3), "b": of(6), "g": of(6), "m": of(6), "v": of(6) ** 2, "T": of(6, 2, 3)},
    ),
    "the same size, more padding first": lambda: model(
        (3, 8, 7),
        [
            ("Conv", ["x", "W"], {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
            ("MaxPool", ["."], {"auto_pad": "SAME_LOWER", "kernel_shape": [2, 4], "strides": [1, 2]}),
        ],
        {"W": of(4, 3, 2, 3)},
    ),
    "the same size": lambda: model(
        (3, 8, 7),
        [
            ("Conv", ["x", "W"], {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
            ("AveragePool", ["."], {"auto_pad": "VALID", "kernel_shape": [2, 2]}),
        ],
        {"W": of(4, 3, 2, 3)},
    ),
    "uneven padding": lambda: model(
        (3, 8, 7), [("Conv", ["x", "W"], {"pads": [0, 1, 2, 3], "kernel_shape": [2, 3]})], {"W": of(4, 3, 2, 3)}
    ),
    "enlarged, with more at the end": lambda: model(
        (3, 4, 5),
        [
            (
                "ConvTranspose",
                ["x", "W", "b"],
                {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1], "dilations": [1, 2]},
            )
        ],
        {"W": of(3, 4, 3, 3), "b": of(4)},
    ),
    "enlarged to a size": lambda: model(
        (3, 4, 5), [("ConvTranspose", ["x", "W"], {"strides": [2, 2], "output_shape": [8, 10]})], {"W": of(3, 4, 3, 3)}
    ),
    "parts of windows": lambda: model(
        (3, 8, 7),
        [
            ("MaxPool", ["x"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
            ("AveragePool", ["."], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ],
    ),
    "counted padding of windows that fit in part": lambda: model(
        (3, 8, 7),
        [
            (
                "AveragePool",
                ["x"],
                {
                    "kernel_shape": [3, 3],
                    "strides": [2, 2],
                    "pads": [1, 0, 1, 1],
                    "ceil_mode": 1,
                    "count_include_pad": 1,
                },
            )
        ],
    ),
    "a sum with constants": lambda: model((3, 4), [("Sum", ["a", "x", "b"], {})], {"a": of(4), "b": of(1, 3, 1)}),
    "softmax of channels": lambda: model((3, 4, 5), [("Softmax", ["x"], {"axis": 1})]),
    "softmax of columns": lambda: model((3, 4, 5), [("Softmax", ["x"], {"axis": -1})]),
    "softmax of tokens": lambda: model((3, 4), [("Softmax", ["x"], {"axis": 1})]),
    "softmax of old": lambda: model((3, 4, 5), [("Softmax", ["x"], {"axis": 2})], opset=11),
    "softmax of old, of all": lambda: model((3, 4, 5), [("Softmax", ["x"], {})], opset=11),
    "clipped": lambda: model(
        (3, 4),
        [("Clip", ["x", "no", "six"], {}), ("Clip", [".", "no"], {})],
        {"no": np.float32(0), "six": np.float32(6)},
    ),
    "clipped of old": lambda: model(
        (3, 4), [("Clip", ["x"], {"min": 0.0, "max": 6.0}), ("Clip", ["."], {"min": 0.0})], opset=9
    ),
    "functions": lambda: model(
        (3, 4),
        [
            ("LeakyRelu", ["x"], {"alpha": 0.2}),
            ("Sigmoid", ["."], {}),
            ("Tanh", ["."], {}),
            ("Identity", ["."], {}),
            ("Dropout", ["."], {}),
            ("Cast", ["."], {"to": 1}),
            ("Relu", ["."], {}),
        ],
    ),
    "constants": lambda: model(
        (3, 4, 5),
        [
            ("Sub", ["x", "mean"], {}),
            ("Div", [".", "std"], {}),
            ("Relu", ["."], {}),
            ("Sub", ["one", "."], {}),
            ("Mul", [".", "columns"], {}),
            ("Relu", ["."], {}),
            ("Add", ["rows", "."], {}),
        ],
        {
            "mean": of(1, 3, 1, 1),
            "std": of(3, 1, 1) ** 2 + 1,
            "one": np.float32(1),
            "columns": of(5),
            "rows": of(4, 1),
        },
    ),
    "a number times rows": lambda: model(
        (4,), [("Relu", ["x"], {}), ("Mul", [".", "c"], {}), ("Sigmoid", ["."], {})], {"c": np.float32(3)}
    ),
    "factors before weights": lambda: model(
        (4, 5, 3),
        [
            ("Relu", ["x"], {}),
            ("Mul", [".", "c"], {}),
            ("Conv", [".", "W"], {"group": 2, "pads": [1, 1, 1, 1]}),
            ("Relu", ["."], {}),
            ("Mul", [".", "d"], {}),
            ("Flatten", ["."], {}),
            ("Gemm", [".", "V"], {}),
            ("Div", [".", "e"], {}),
            ("Add", [".", "e"], {}),
        ],
        {"c": of(4, 1, 1), "W": of(6, 2, 3, 3), "d": of(6, 1, 1), "V": of(90, 4), "e": of(4) + 3},
    ),
    "factors behind weights": lambda: model(
        (4, 5, 3),
        [
            ("Conv", ["x", "W", "b"], {}),
            ("Mul", [".", "c"], {}),
            ("ConvTranspose", [".", "T"], {}),
            ("Transpose", ["."], {"perm": [0, 2, 3, 1]}),
            ("Sub", [".", "d"], {}),
            ("Mul", [".", "columns"], {}),
        ],
        {"W": of(6, 4, 2, 2), "b": of(6), "c": of(6, 1, 1), "T": of(6, 2, 2, 2), "d": of(2), "columns": of(3, 1)},
    ),
    "reshaped": lambda: model(
        (2, 3, 4),
        [
            ("Unsqueeze", ["x", "axes"], {}),
            ("Relu", ["."], {}),
            ("Squeeze", [".", "axis"], {}),
            ("Reshape", [".", "shape"], {}),
            ("Flatten", ["."], {"axis": -1}),
        ],
        {"axes": vector(1, -1), "axis": vector(-1), "shape": vector(-1, 24)},
    ),
    "mean of pixels": lambda: model((2, 3, 4), [("ReduceMean", ["x", "axes"], {})], {"axes": vector(2, -1)}, opset=18),
    "mean of channels": lambda: model((2, 3, 4), [("ReduceMean", ["x"], {"axes": [1], "keepdims": 0})]),
    "a constant of a node": lambda: model(
        (3,), [("Constant", [], {"value_floats": [1.0, 2.0, 4.0]}), ("Mul", [".", "x"], {})]
    ),
    "a sum of a value and itself": lambda: model((3,), [("Relu", ["x"], {}), ("Add", [".", "."], {})]),
    "a sum by its name": lambda: model((3,), [("Relu", ["x"], {}), ("Sum", [".", "x"], {})]),
    "a number for each sample": lambda: model(
        (2, 3),
        [("Shape", ["x"], {}), ("Expand", ["c", "."], {}), ("Relu", ["x"], {}), ("Mul", [".", "1"], {})],
        {"c": of(3)},
    ),
    "equal numbers": lambda: model(
        (2, 3),
        [("Shape", ["x"], {}), ("ConstantOfShape", ["."], {"value": number(3)}), ("Add", ["x", "."], {})],
    ),
    "a batch of one size": lambda: model((2, 3), [("Reshape", ["x", "s"], {})], {"s": vector(3, 6)}, batch=3),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph(name):
    assert_as_onnxruntime(GRAPHS[name]())


def test_what_a_graph_writes_in_several_nodes_is_one_layer():
    named = {name: list(layers_from_onnx(GRAPHS[name]()).layers) for name in GRAPHS}
    assert named["a matrix, then a bias"] == ["Affine1"]
    assert named["flattened by its own batch"] == ["Affine1"]
    assert named["factors before weights"] == ["Relu1", "Convolution1", "Relu2", "Affine1"]
    assert named["factors behind weights"][:3] == ["Convolution1", "ConvolutionTranspose1", "Permute1"]
    assert named["rows of tokens"] == ["PositionwiseAffine1", "Relu1"]
    assert named["factors and positions of tokens"][:3] == ["PositionalEmbedding1", "Relu1", "PositionwiseAffine1"]
    assert named["mean of pixels"] == ["GlobalAveragePooling1", "Reshape1"]
    tokens = layers_from_onnx(GRAPHS["an image as tokens"]())
    assert sum(isinstance(layer, LayerNormalization) for layer in tokens.layers.values()) == 1
    assert sum(isinstance(layer, GlobalAveragePooling) for layer in tokens.layers.values()) == 1
    assert isinstance(layers_from_onnx(GRAPHS["functions"]())["Dropout1"], Dropout)


BRANCHES = {
    "around one node": [("Relu", ["x"], {}), ("Sigmoid", ["."], {}), ("Add", [".", "0"], {})],
    "around none": [("Relu", ["x"], {}), ("Add", ["x", "."], {})],
    "two ways": [("Relu", ["x"], {}), ("Tanh", ["x"], {}), ("Add", ["0", "1"], {}), ("Relu", ["."], {})],
    "in each other": [
        ("Relu", ["x"], {}),
        ("Tanh", ["."], {}),
        ("Add", ["1", "0"], {}),
        ("Sigmoid", ["."], {}),
        ("Add", [".", "x"], {}),
    ],
    "a sum of three": [
        ("Relu", ["x"], {}),
        ("Tanh", ["x"], {}),
        ("Add", ["0", "1"], {}),
        ("Sigmoid", ["x"], {}),
        ("Add", ["2", "3"], {}),
    ],
}


@pytest.mark.parametrize("name", BRANCHES)
def test_branches(name):
    layers = assert_as_onnxruntime(model((2, 3), BRANCHES[name]))
    assert any(isinstance(layer, Residual) for layer in layers.layers.values())


def gelu(factor=0.5, cubic=0.044715, function="Tanh", inner=(2 / np.pi) ** 0.5):
    """Return nodes as programs write them: (x·factor)·(1 + tanh(inner·(x + cubic·x³)))."""
    nodes = [
        ("Pow", ["x", "three"], {}),
        ("Mul", [".", "cubic"], {}),
        ("Add", ["x", "."], {}),
        ("Mul", [".", "inner"], {}),
        (function, ["."], {}),
        ("Add", [".", "one"], {}),
        ("Mul", ["x", "factor"], {}),
        ("Mul", ["5", "."], {}),
    ]
    numbers = {"three": 3, "cubic": cubic, "inner": inner, "one": 1, "factor": factor}
    return model((3, 4), nodes, {name: np.float32(number) for name, number in numbers.items()})


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_gelu_of_several_nodes(factor):
    layers = assert_as_onnxruntime(gelu(factor))
    assert isinstance(layers["Gelu1"], Gelu)
    assert len(layers) == (1 if factor == 0.5 else 4)


def test_a_gelu_of_an_operator():
    layers = layers_from_onnx(model((3, 4), [("Gelu", ["x"], {"approximate": "tanh"})], opset=20))
    assert isinstance(layers["Gelu1"], Gelu)


def test_shapes_that_are_open_are_given():
    given = model((3, 8, 8), [("GlobalAveragePool", ["x"], {})])
    given.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(ValueError, match=r"the input 'x' is \(\?, 3, \?, 8\): give the shape of a sample as shape="):
        layers_from_onnx(given)
    assert_as_onnxruntime(given, shape=(3, 5, 8))


def test_the_network_ends_at_a_value():
    given = model((4,), [("Gemm", ["x", "W"], {}), ("Softmax", ["."], {})], {"W": of(4, 5)})
    assert list(layers_from_onnx(given).layers) == ["Affine1", "Softmax1"]
    assert list(from_onnx(given, output="0").layers.layers) == ["Affine1"]


@pytest.mark.parametrize(("kind", "dtype"), [(10, "float16"), (11, "float64")])
def test_the_dtype_is_that_of_the_input(kind, dtype):
    given = model((4,), [("Gemm", ["x", "W"], {})], {"W": of(4, 5).astype(dtype)}, kind=kind)
    network = from_onnx(given)
    assert network.params.flat.dtype == dtype
    x = of(3, 4).astype(dtype)
    assert network.predict(x).dtype == dtype
    np.testing.assert_allclose(network.predict(x), x @ of(4, 5).astype(dtype), rtol=5e-3)


def test_functions_of_the_model_are_read():
    body = helper.make_function(
        "own", "Twice", ["a"], ["c"], [helper.make_node("Add", ["a", "a"], ["c"])], [helper.make_opsetid("", 17)]
    )
    given = model((3,), [("Relu", ["x"], {}), ("Relu", ["."], {})])
    given.graph.node[1].op_type, given.graph.node[1].domain = "Twice", "own"
    given.functions.append(body)
    given.opset_import.append(helper.make_opsetid("own", 1))
    x = of(2, 3)
    np.testing.assert_allclose(layers_from_onnx(given).forward(x), 2 * np.maximum(x, 0))


REFUSED = {
    "the node 'node0', Elu: xpnet has no layer for it; it imports Add, AveragePool, .*, Unsqueeze": (
        (3,), [("Elu", ["x"], {})]
    ),
    "the node 'node0', Gemm: expected one input that is not constant": ((3,), [("Gemm", ["x", "x"], {})]),
    "the node 'node1', Mul: expected one input that is not constant": (
        (3,), [("Sigmoid", ["x"], {}), ("Mul", ["x", "."], {})]
    ),
    r"the node 'node1', Add: it adds samples of \(3, 1, 1\) and \(3, 4, 5\)": (
        (3, 4, 5), [("GlobalAveragePool", ["x"], {}), ("Add", [".", "x"], {})]
    ),
    "the node 'node1', Concat: expected a value and then what is made of it, side by side": (
        (3, 4, 5), [("Relu", ["x"], {}), ("Concat", [".", "x"], {"axis": 1})]
    ),
    "the node 'node1', Concat: expected values side by side along the axis 1, the channels, got 3": (
        (3, 4, 5), [("Relu", ["x"], {}), ("Concat", ["x", "."], {"axis": 3})]
    ),
    "the node 'node0', Relu: its output goes to several branches that do not meet in one sum": (
        (3,),
        [
            ("Relu", ["x"], {}),
            ("Tanh", ["."], {}),
            ("Add", [".", "x"], {}),
            ("Sigmoid", ["."], {}),
            ("Add", [".", "0"], {}),
        ],
    ),
    r"the node 'node0', Add: its constant \(4, 3\) is another for each sample of \(3,\)": (
        (3,), [("Add", ["x", "c"], {})], {"c": np.ones((4, 3), "float32")}
    ),
    r"the node 'node0', Add: its constant \(2, 3\) enlarges samples of \(1, 3\)": (
        (1, 3), [("Add", ["x", "c"], {})], {"c": np.ones((2, 3), "float32")}
    ),
    "the node 'node0', Div: expected finite constants, and none of 0": (
        (3,), [("Div", ["x", "c"], {})], {"c": np.zeros(3, "float32")}
    ),
    "the node 'node0', Div: it divides a constant by its input": (
        (3,), [("Div", ["c", "x"], {})], {"c": np.ones(3, "float32")}
    ),
    "the node 'node0', Clip: it clips to -1 … 1": (
        (3,), [("Clip", ["x", "a", "b"], {})], {"a": np.float32(-1), "b": np.float32(1)}
    ),
    "the node 'node0', MatMul: expected a constant as its second input": (
        (3, 3), [("MatMul", ["W", "x"], {})], {"W": np.ones((3, 3), "float32")}
    ),
    r"the node 'node0', Reshape: the shape \[3\] does not keep the batch and the 3 numbers": (
        (3,), [("Reshape", ["x", "s"], {})], {"s": np.asarray([3])}
    ),
    "the output '0' does not depend on the input 'x'": (
        (3,), [("Identity", ["c"], {})], {"c": np.ones(3, "float32")}
    ),
    "the node 'node0', Conv: .*3 groups do not divide 4 filters": (
        (3, 4, 4), [("Conv", ["x", "W"], {"group": 3})], {"W": np.ones((4, 1, 2, 2), "float32")}
    ),
    "the node 'node0', Gemm: expected B as a constant|expected rows and a matrix": (
        (3, 3), [("Gemm", ["x", "W"], {})], {"W": np.ones((3, 2), "float32")}
    ),
    "expected an input 'x' of float16, float32 or float64, or int32 or int64 for indices, got int8": (
        (3,), [("Relu", ["x"], {})], {}, 17, "n", 3
    ),
    "expected operators of opset 6 or later, got 5": ((3,), [("Relu", ["x"], {})], {}, 5),
    "the node 'node1', Add: an input has the steps of sequences before the batch": (
        (3, 4), [("Transpose", ["x"], {"perm": [1, 0, 2]}), ("Add", [".", "."], {})]
    ),
    "the node 'node7', Mul: xpnet's Gelu is the approximation by tanh": None,
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_layers_is_refused_by_name(message):
    case = REFUSED[message]
    given = gelu(cubic=0.0, function="Erf", inner=2**-0.5) if case is None else model(*case)
    with pytest.raises(ValueError, match=message):
        layers_from_onnx(given)


def test_a_function_that_is_almost_a_gelu_is_refused():
    with pytest.raises(ValueError, match="the node 'node0', Pow: xpnet has no layer for it"):
        layers_from_onnx(gelu(cubic=0.0448))


def test_models_of_several_inputs_or_outputs():
    given = model((3,), [("Relu", ["x"], {})])
    given.graph.output.append(helper.make_tensor_value_info("x2", TensorProto.FLOAT, None))
    given.graph.node.append(helper.make_node("Tanh", ["x"], ["x2"]))
    with pytest.raises(ValueError, match="expected output=, one of '0', 'x2'"):
        layers_from_onnx(given)
    assert isinstance(layers_from_onnx(given, output="0")["Relu1"], Relu)
    given.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    with pytest.raises(ValueError, match="expected a model of one input, got 2: 'x', 'y'"):
        layers_from_onnx(given, output="0")


def test_branches_in_too_many_others_are_refused():
    nodes = [("Relu", ["x"], {})]
    for number in range(60):
        nodes += [("Relu", ["."], {}), ("Add", [f"{2 * number + 1}", "x"], {})]
    with pytest.raises(ValueError, match="expected branches in at most 50 others"):
        layers_from_onnx(model((3,), nodes))


def test_an_output_that_is_no_row_is_for_the_softmax_loss_alone():
    given = model((3, 4, 4), [("Relu", ["x"], {})])
    assert onnx.checker.check_model(given) is None
    with pytest.raises(ValueError, match=r"MeanSquaredError takes \(outputs,\), a row .*, got \(3, 4, 4\)"):
        from_onnx(given, "mean-squared")
    assert from_onnx(given).output_dim == (3, 4, 4)
