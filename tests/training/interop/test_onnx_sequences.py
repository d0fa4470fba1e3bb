"""Embeddings and recurrent layers as ONNX, compared with what onnxruntime computes of them."""

import importlib.util

import numpy as np
import pytest

from backend import random
from layers import GRU, LSTM, RNN, Affine, Embedding, Flatten, Residual, Sequential
from training.interop import export_onnx, from_onnx, layers_from_onnx, to_onnx
from training.models import Network, build_for
from training.models.architecture import describe
from training.zoo import CHARACTER_NETWORKS

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
if HAS_ONNX:
    import onnx.reference
    import onnxruntime

pytestmark = pytest.mark.skipif(
    not HAS_ONNX, reason="onnx and onnxruntime, which it is compared with, are not installed"
)


def stirred(network):
    """Return the network with biases that are not 0."""
    rng = np.random.default_rng(0)
    for name, array in network.params.items():
        if name[0] == "b":
            array += rng.normal(0, 0.5, array.shape).astype("float32")
    return network


def outputs(network, x, file):
    export_onnx(network, file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    run = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (found,) = run.run(None, {"x": x})
    return found


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
def test_recurrent_layers(kind, samples, tmp_path):
    random.seed(0)
    layers = Sequential(kind.of(3, 5), kind.of(5, 4), Flatten(), Affine.of(28, 2))
    network = stirred(Network(layers, (7, 3)))
    x = np.random.default_rng(1).standard_normal((samples, 7, 3), "float32")
    np.testing.assert_allclose(outputs(network, x, tmp_path / "model.onnx"), network.predict(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("nested", [False, True])
def test_a_network_of_indices(nested, tmp_path):
    random.seed(0)
    first = Embedding.of(11, 3)
    layers = Sequential(Sequential(first) if nested else first, LSTM.of(3, 5), Flatten(), Affine.of(35, 2))
    network = stirred(Network(layers, (7,)))
    x = np.random.default_rng(1).integers(0, 11, (4, 7))
    np.testing.assert_allclose(outputs(network, x, tmp_path / "model.onnx"), network.predict(x), rtol=0, atol=1e-5)


def test_indices_of_several_axes(tmp_path):
    random.seed(0)
    network = Network(Sequential(Embedding.of(5, 2), Flatten(), Affine.of(24, 2)), (3, 4))
    x = np.random.default_rng(1).integers(0, 5, (2, 3, 4))
    np.testing.assert_allclose(outputs(network, x, tmp_path / "model.onnx"), network.predict(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CHARACTER_NETWORKS)
def test_a_network_of_characters(name, tmp_path):
    random.seed(0)
    network = stirred(build_for(name, (7,), 11))
    x, expected = np.random.default_rng(1).integers(0, 11, (4, 7)), (4, 7, 11)
    found, scores = outputs(network, x, tmp_path / "model.onnx"), network.predict(x)
    assert found.shape == expected
    tolerance = 1e-5 * float(abs(scores).max())
    np.testing.assert_allclose(found, scores, rtol=0, atol=tolerance)
    again = from_onnx(tmp_path / "model.onnx")
    assert again.title == name
    np.testing.assert_allclose(again.predict(x), scores, rtol=0, atol=tolerance)


NETWORKS = {
    "RNN": lambda: ((7, 3), RNN.of(3, 5), Flatten(), Affine.of(35, 2)),
    "LSTM": lambda: ((7, 3), LSTM.of(3, 5), LSTM.of(5, 4), Flatten(), Affine.of(28, 2)),
    "GRU": lambda: ((7, 3), GRU.of(3, 5), Residual(Sequential(GRU.of(5, 5))), Flatten(), Affine.of(35, 2)),
    "indices": lambda: ((7,), Embedding.of(11, 3), LSTM.of(3, 5), Flatten(), Affine.of(35, 2)),
    "indices of several axes": lambda: ((3, 4), Embedding.of(11, 2), Flatten(), Affine.of(24, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_over_sequences_comes_back(name):
    random.seed(0)
    shape, *layers = NETWORKS[name]()
    network = stirred(Network(Sequential(*layers), shape))
    found = from_onnx(to_onnx(network))
    rng = np.random.default_rng(1)
    x = rng.integers(0, 11, (4, *shape)) if "indices" in name else rng.standard_normal((4, *shape), "float32")
    np.testing.assert_allclose(found.predict(x), network.predict(x), rtol=0, atol=1e-6)
    flat = Sequential(*(layer for layer in layers if not isinstance(layer, Flatten)))  # an Affine needs none
    assert describe(found.layers) == describe(flat)


def test_states_that_begin_with_zeros_for_each_sample(tmp_path):
    """As PyTorch writes them: of the batch's size, which is known only as the model runs."""
    random.seed(0)
    network = stirred(Network(Sequential(LSTM.of(3, 5), Flatten(), Affine.of(35, 2)), (7, 3)))
    model, node = to_onnx(network), onnx.helper.make_node
    for name, array in {"one": 1, "axes": [0], "first": [1], "last": [5]}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    place = next(place for place, each in enumerate(model.graph.node) if each.op_type == "LSTM")
    model.graph.node[place].input.extend(["", "zeros", "zeros"])
    more = [
        node("Shape", [model.graph.node[place].input[0]], ["sizes"]),
        node("Gather", ["sizes", "one"], ["batch"]),
        node("Unsqueeze", ["batch", "axes"], ["middle"]),
        node("Concat", ["first", "middle", "last"], ["shape"], axis=0),
        node("ConstantOfShape", ["shape"], ["zeros"]),
    ]
    for each in reversed(more):
        model.graph.node.insert(place, each)
    run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((4, 7, 3), "float32")
    found = from_onnx(model).predict(x)
    np.testing.assert_array_equal(found, network.predict(x))
    np.testing.assert_allclose(found, run.run(None, {"x": x})[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
def test_sequences_whose_batch_is_first(kind):
    """As layout=1 says; onnxruntime does not compute that, ONNX's own reference does."""
    random.seed(0)
    network = stirred(Network(Sequential(kind.of(3, 5), Flatten(), Affine.of(35, 2)), (7, 3)))
    model, make = to_onnx(network), onnx.helper.make_attribute
    before, recurrent, squeeze, behind, flatten, *_ = model.graph.node
    recurrent.input[0], flatten.input[0] = "x", squeeze.output[0]
    recurrent.attribute.append(make("layout", 1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([2]), "directions"))
    squeeze.input[1] = "directions"
    for node in (before, behind):
        model.graph.node.remove(node)
    x = np.random.default_rng(1).standard_normal((4, 7, 3), "float32")
    found = from_onnx(model)
    np.testing.assert_array_equal(found.predict(x), network.predict(x))
    assert list(found.layers.layers) == [f"{kind.__name__}1", "Affine1"]
    (expected,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(found.predict(x), expected, rtol=0, atol=1e-5)


def changed(**attributes):
    """Return a model of a network with an LSTM, whose node has other attributes."""
    model = to_onnx(Network(Sequential(LSTM.of(3, 5), Flatten(), Affine.of(35, 2)), (7, 3)))
    node = next(node for node in model.graph.node if node.op_type == "LSTM")
    for name, value in attributes.items():
        node.attribute.append(onnx.helper.make_attribute(name, value))
    return model, node


def test_what_recurrent_layers_do_not_have_is_refused():
    for attributes in ({"direction": "reverse"}, {"clip": 1.0}, {"activations": ["Relu", "Tanh", "Tanh"]}):
        with pytest.raises(ValueError, match="LSTM: expected the direction forward, the usual activations"):
            from_onnx(changed(**attributes)[0])
    model, node = changed()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1, 5), "float32"), "h"))
    node.input.extend(["", "h"])
    with pytest.raises(ValueError, match="LSTM: initial_h is given; sequences have one length and begin with zeros"):
        from_onnx(model)
    with pytest.raises(ValueError, match=r"LSTM: expected sequences \(N, T, D\), as layout=1 says, got \(T, N, …\)"):
        from_onnx(changed(layout=1)[0])
    model, node = changed(layout=1)
    node.input[0] = "x"
    model.graph.input[0].type.tensor_type.shape.dim.pop()
    with pytest.raises(ValueError, match=r"LSTM: expected sequences \(N, T, D\), .* got samples of \(7,\)"):
        from_onnx(model)
    model, node = changed()
    node.input[0] = "x"
    with pytest.raises(ValueError, match="LSTM: expected sequences with their steps before the batch"):
        from_onnx(model)
    model = to_onnx(Network(Sequential(GRU.of(3, 5), Flatten(), Affine.of(35, 2)), (7, 3)))
    node = next(node for node in model.graph.node if node.op_type == "GRU")
    del node.attribute[:]
    with pytest.raises(ValueError, match="GRU: expected linear_before_reset=1"):
        from_onnx(model)


def test_steps_before_the_batch_are_only_for_recurrent_layers():
    model, _ = changed()
    squeeze = next(each for each in model.graph.node if each.op_type == "Squeeze")
    squeeze.op_type = "Relu"
    del squeeze.input[1]
    with pytest.raises(ValueError, match=r"Relu: its input is \(T, 1, N, …\), the steps of sequences before the batch"):
        from_onnx(model)
    transposed = model.graph.node[0].output[0]
    with pytest.raises(ValueError, match="Transpose: it moves the batch to another axis"):
        layers_from_onnx(model, output=transposed)


def test_indices_are_for_embeddings():
    model = to_onnx(Network(Sequential(Embedding.of(11, 3), Flatten(), Affine.of(21, 2)), (7,)))
    model.graph.node[0].CopyFrom(onnx.helper.make_node("Identity", ["x"], list(model.graph.node[0].output), "first"))
    with pytest.raises(ValueError, match="the node 'first', Identity: the input of the model are indices, which only"):
        from_onnx(model)
