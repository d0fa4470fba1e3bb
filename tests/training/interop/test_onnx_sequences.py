"""Embeddings and recurrent layers as ONNX, compared with what onnxruntime computes of them."""

import importlib.util

import numpy as np
import pytest

from backend import random
from layers import GRU, LSTM, RNN, Affine, Embedding, Flatten, Sequential
from training.interop.onnx_export import export_onnx
from training.models import Network

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
if HAS_ONNX:
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
