"""The tests of single nodes that the package onnx ships, run through the import.

Each is a graph of one node with inputs and outputs. Its first input is the network's, with its first axis as the batch.
The others are constants, as they are in networks. Of several outputs the first is compared: a network has one.
Operators that make constants of constants are run so, too: what they make is added to zeros.
"""

import functools
import importlib
import importlib.util
import pkgutil
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from training.interop.onnx_import import layers_from_onnx
from training.interop.onnx_operators import READERS
from training.interop.onnx_reading import FOLDED
from training.interop.onnx_steps import RECURRENT

HAS_ONNX = importlib.util.find_spec("onnx") is not None
if HAS_ONNX:
    import onnx

pytestmark = pytest.mark.skipif(not HAS_ONNX, reason="onnx, which ships the tests of nodes, is not installed")

OLD = {"batchnormalization": "batchnorm"}
"""The modules with the tests of an operator that older versions of onnx call otherwise."""

OPERATORS = sorted([*READERS, *RECURRENT, "Attention"])
"""Those that become layers, and attention, which a graph may also write as products and a softmax."""

MAKERS = sorted({*FOLDED, "Constant", "ConstantOfShape", "Expand", "Shape"} - {"Cast", "Identity"})
"""Those that make constants, save two that leave the numbers as they are."""

ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Sum")
"""Operators whose tests have samples of any shape: their data are one sample."""

BATCH = "layers compute with each sample alone, and here the batch takes part"
INTEGERS = "networks compute with floating-point numbers"
VOLUMES = "windows move over images and rows, not over volumes"
CLIPPED = "layers clip to 0 and more, or to 0 up to 6"
LAST = "recurrent layers return the states of all steps, and here the last one alone is compared"
BACKWARD = "recurrent layers go from the first step to the last"
CONSTANT = "a constant, here the second input, is the same for each sample"
EMPTY = "layers have one number at least"

NOT_EXPRESSIBLE = {
    r"(add|sub|mul|div)_u?int.*": INTEGERS,
    r"attention_.*": "MultiHeadAttention makes queries, keys and values of one input, and here they are three",
    r"averagepool_3d_.*": VOLUMES,
    r"maxpool_3d_.*": VOLUMES,
    r"convtranspose_3d": VOLUMES,
    r"maxpool_2d_uint8": INTEGERS,
    r"batchnorm_.*_training_mode": "a network that is imported is in evaluation",
    r"cast_.*": "all of a network has one dtype",
    r"clip_default_int8_.*": INTEGERS,
    r"clip(_example|_inbounds|_outbounds|_splitbounds|_min_greater_than_max|_default_max)?": CLIPPED,
    r"convtranspose_(output_shape|pad|kernel_shape)": "ConvolutionTranspose makes no pixels that no window covers",
    r"convtranspose_group_2.*": "ConvolutionTranspose has no groups",
    r"flatten_(axis0|axis2|axis3|negative_axis[124])": BATCH,
    r"gather_.*": "Embedding chooses rows of a matrix",
    r"(simple_rnn|lstm|gru)_(defaults|with_initial_bias)": LAST,
    r"(rnn|gru)_seq_length": LAST,
    r"(simple_rnn|lstm|gru)_(reverse|bidirectional)": BACKWARD,
    r"lstm_with_peepholes": "LSTM has no peepholes",
    r"gru_batchwise": "the reset gate of GRU is behind the product (linear_before_reset=1)",
    r"gelu_default_\d": "Gelu is the approximation by tanh",
    r"gemm_default_matrix_bias": CONSTANT,
    r"gemm_(transposeA|all_attributes)": BATCH,
    r"identity_(sequence|opt)": "a network takes one array",
    r"layer_normalization_(4d_axis0|4d_axis_negative_4|2d_axis0|2d_axis_negative_2)": BATCH,
    r"layer_normalization_(3d_axis0_epsilon|3d_axis_negative_3_epsilon)": BATCH,
    r"matmul_(3d|4d|bcast)": CONSTANT,
    r"matmul_(1d_3d|1d_1d)": "a sample is a vector at least, and here a number",
    r"reduce_mean_default_axes_.*": BATCH,
    r"reshape_(reordered_all_dims|one_dim|negative_extended_dims)": BATCH,
    r"reshape_allowzero_reordered": BATCH,
    r"softmax_axis_0": BATCH,
    r"squeeze": BATCH,
    r"transpose_(default|all_permutations_[2345])": BATCH,
    r"unsqueeze_axis_0": BATCH,
    r"training_dropout(_mask|_default|_default_mask)?": "a network that is imported is in evaluation",
}  # fmt: skip
"""Why a test, by its name without "test_", cannot be expressed in xpnet's layers."""

NOT_MADE = {
    r"shape(_example|_end_1|_end_negative_1|_clip_start|_clip_end)?": BATCH,
    r"shape_start_greater_than_end": EMPTY,
    r"constantofshape_int_shape_zero": EMPTY,
    r"slice_start_out_of_bounds": EMPTY,
    r"reshape_allowzero_reordered": EMPTY,
}
"""Why what a node makes is no constant of a layer."""


@functools.cache
def cases(operator):
    """Return the tests of an operator by name, without those of its function in other operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own
        state = np.random.get_state()
        package = importlib.import_module("onnx.backend.test.case.node")
        modules = {each.name.replace("_", ""): each.name for each in pkgutil.iter_modules(package.__path__)}
        name = modules.get(operator.lower()) or modules[OLD[operator.lower()]]
        importlib.import_module(f"{package.__name__}.{name}")
        np.random.set_state(state)
    found = {}
    for case in package._NodeTestCases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type == operator and "_expanded" not in case.name:
            found[case.name.removeprefix("test_")] = case
    return found


def reason(name, table=NOT_EXPRESSIBLE):
    """Return why a test is not run, or None."""
    return next((why for pattern, why in table.items() if re.fullmatch(pattern, name)), None)


def outcome(case):
    """Return the output that the imported layers compute, and what is expected."""
    inputs, outputs = case.data_sets[0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    names = [each.name for each in graph.input]
    for name, array in list(zip(names, inputs, strict=True))[1:]:
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    x, expected = inputs[0], outputs[0]
    if graph.node[0].op_type in ARITHMETIC:
        x, expected = np.asarray(x)[None], np.asarray(expected)[None]
        graph.input[0].type.tensor_type.shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=1))
    network = layers_from_onnx(model, output=graph.output[0].name).eval()
    return network.forward(x), expected


def made(case):
    """Return a constant that a node makes as the layers add it to zeros, and what is expected, for each sample.

    The input of a node that asks for its shape is the network's; the inputs of others are constants.
    """
    inputs, (expected, *_) = case.data_sets[0]
    model, make = onnx.ModelProto(), onnx.helper.make_node
    model.CopyFrom(case.model)
    graph, node = model.graph, model.graph.node[0]
    of_input = node.op_type == "Shape"
    x = inputs[0] if of_input else np.zeros((2, 1), "float32")
    del graph.input[:]
    name = node.input[0] if of_input else "samples"
    graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, x.shape))
    zeros = np.zeros((x[0].size, expected.size), "float32")
    constants = {"zeros": zeros, "sizes": np.asarray([-1, *expected.shape])}
    constants |= {} if of_input else dict(zip(filter(None, node.input), inputs, strict=True))
    graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(array), key) for key, array in constants.items())
    graph.node.extend([
        make("Cast", [node.output[0]], ["numbers"], to=onnx.TensorProto.FLOAT),
        make("Flatten", [name], ["rows"]),
        make("MatMul", ["rows", "zeros"], ["nothing"]),
        make("Reshape", ["nothing", "sizes"], ["place"]),
        make("Add", ["place", "numbers"], ["made"]),
    ])  # fmt: skip
    return layers_from_onnx(model, output="made").eval().forward(x), np.stack([expected] * len(x))


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_nodes_of_an_operator(operator):
    """Each test computes what it expects, or is refused in words that name its node, as the table says."""
    assert cases(operator)
    for name, case in cases(operator).items():
        if reason(name) is None:
            found, expected = outcome(case)
            np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.atol, err_msg=name)
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
        else:
            with pytest.raises(ValueError, match=rf"the node '\w+', {operator}: |expected an input|the input '\w+' is"):
                outcome(case)


@pytest.mark.parametrize("operator", MAKERS)
def test_the_constants_of_an_operator(operator):
    """Each has the numbers that are expected, or the node that adds it says why it cannot."""
    assert cases(operator)
    for name, case in cases(operator).items():
        if reason(name, NOT_MADE) is None:
            found, expected = made(case)
            np.testing.assert_array_equal(found, expected, err_msg=name)
        else:
            with pytest.raises(ValueError, match=r"the node '\w+', (Add|MatMul|Reshape): "):
                made(case)


def test_every_operator_of_the_documentation_is_run():
    text = (Path(__file__).parents[3] / "docs/networks.md").read_text("utf-8")
    rows = text.split("| operators | become |")[1].split("\n\n")[0].splitlines()[2:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {"Conv", "Sum", "Concat", "Constant"} <= named
    assert named - {*OPERATORS, *MAKERS} == set()


def test_as_many_are_run_as_there_were():
    """A pattern in the tables that leaves out more than it says would be seen here alone."""
    run = [name for operator in OPERATORS for name in cases(operator) if reason(name) is None]
    constants = [name for operator in MAKERS for name in cases(operator) if reason(name, NOT_MADE) is None]
    assert len(run) >= 130
    assert len(constants) >= 55


def test_the_tables_name_tests_that_there_are():
    for table, operators in ((NOT_EXPRESSIBLE, OPERATORS), (NOT_MADE, MAKERS)):
        names = [name for operator in operators for name in cases(operator)]
        assert [pattern for pattern in table if not any(re.fullmatch(pattern, name) for name in names)] == []


def converted():
    """Return the folders of the models that PyTorch's own tests of layers were converted to, long ago, in opset 6."""
    return sorted((Path(onnx.__file__).parent / "backend/test/data/pytorch-converted").glob("test_*"))


def tensors(folder, kind):
    files = sorted(folder.glob(f"test_data_set_0/{kind}_*.pb"))
    return [onnx.numpy_helper.to_array(onnx.load_tensor(file)) for file in files]


def test_models_of_pytorch_compute_what_it_did_or_are_refused():
    if not converted():
        pytest.skip("this version of onnx ships no models of PyTorch")
    done = []
    for folder in converted():
        try:
            network = layers_from_onnx(folder / "model.onnx").eval()
        except ValueError as error:
            assert re.match(r"the node '\w+', \w+: |expected an input", str(error)), folder.name  # noqa: PT017
            continue
        (x,), (expected,) = tensors(folder, "input"), tensors(folder, "output")
        np.testing.assert_allclose(network.forward(x), expected, rtol=1e-5, atol=1e-6, err_msg=folder.name)
        done.append(folder.name)
    assert len(done) >= 45, done
