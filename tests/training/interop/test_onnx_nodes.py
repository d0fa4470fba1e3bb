"""The tests of single nodes that the package onnx ships, run through the import.

Each is a graph of one node with inputs and outputs. Its first input is the network's, with its first axis as the batch.
The others are constants, as they are in networks. Of several outputs the first is compared: a network has one.
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
from training.interop.onnx_steps import RECURRENT

HAS_ONNX = importlib.util.find_spec("onnx") is not None
if HAS_ONNX:
    import onnx

pytestmark = pytest.mark.skipif(not HAS_ONNX, reason="onnx, which ships the tests of nodes, is not installed")

OLD = {"batchnormalization": "batchnorm"}
"""The modules with the tests of an operator that older versions of onnx call otherwise."""

OPERATORS = sorted([*READERS, *RECURRENT])

ARITHMETIC = ("Add", "Sub", "Mul", "Div")
"""Operators whose tests have samples of any shape: their data are one sample."""

BATCH = "layers compute with each sample alone, and here the batch takes part"
INTEGERS = "networks compute with floating-point numbers"
VOLUMES = "windows move over images and rows, not over volumes"
CLIPPED = "layers clip to 0 and more, or to 0 up to 6"
STEPS = "networks take the batch first, and recurrent layers return the states of all steps"
CONSTANT = "a constant, here the second input, is the same for each sample"

NOT_EXPRESSIBLE = {
    r"(add|sub|mul|div)_u?int.*": INTEGERS,
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
    r"(simple_rnn|rnn|lstm|gru)_.*": STEPS,
    r"gelu_default_\d": "Gelu is the approximation by tanh",
    r"gemm_default_matrix_bias": CONSTANT,
    r"gemm_(transposeA|all_attributes)": BATCH,
    r"identity_(sequence|opt)": "a network takes one array",
    r"layer_normalization_(4d_axis0|4d_axis_negative_4|2d_axis0|2d_axis_negative_2)": BATCH,
    r"layer_normalization_(3d_axis0_epsilon|3d_axis_negative_3_epsilon)": BATCH,
    r"matmul_(3d|4d|bcast)": CONSTANT,
    r"matmul_(1d_3d|1d_1d)": "a sample is a vector at least, and here a number",
    r"matmul_4d_1d": "Affine and Convolution have a matrix, not a vector",
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


def reason(name):
    """Return why a test cannot be expressed, or None."""
    return next((why for pattern, why in NOT_EXPRESSIBLE.items() if re.fullmatch(pattern, name)), None)


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


def passes(case):
    try:
        found, expected = outcome(case)
        np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.atol)
    except (ValueError, TypeError, AssertionError):
        return False
    return (found.shape, found.dtype) == (expected.shape, expected.dtype)


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


def test_nine_of_ten_that_can_be_expressed_pass():
    every = {name: case for operator in OPERATORS for name, case in cases(operator).items()}
    expressible = {name: case for name, case in every.items() if reason(name) is None}
    passed = [name for name, case in expressible.items() if passes(case)]
    assert len(passed) >= 0.9 * len(expressible), sorted(expressible.keys() - set(passed))
    assert len(passed) >= 125, "more are left out than there were"


def test_the_table_names_tests_that_there_are():
    names = [name for operator in OPERATORS for name in cases(operator)]
    assert [pattern for pattern in NOT_EXPRESSIBLE if not any(re.fullmatch(pattern, name) for name in names)] == []


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
