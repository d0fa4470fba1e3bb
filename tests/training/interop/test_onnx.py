"""Networks as ONNX, compared with what onnxruntime computes of them."""

import importlib.util
import json

import numpy as np
import pytest

from backend import random
from layers import (
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    Flatten,
    Gelu,
    GlobalAveragePooling,
    Layer,
    LayerNormalization,
    Permute,
    Pooling,
    Relu,
    Relu6,
    Reshape,
    Residual,
    Sequential,
    Softmax,
)
from layers.initializers import unfilled
from tests.support.command_line import xpnet
from tests.support.networks import NETWORKS
from training.data import Normalization
from training.interop import export_onnx, to_onnx
from training.models import Network, build_for
from training.zoo import NETWORKS as ZOO

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
if HAS_ONNX:
    import onnxruntime

pytestmark = pytest.mark.skipif(
    not HAS_ONNX, reason="onnx and onnxruntime, which it is compared with, are not installed"
)


def stirred(network, seed=0):
    """Return the network with statistics, scales and biases that are not those of new layers."""
    rng = np.random.default_rng(seed)
    for name, array in network.state.items():
        array[...] = rng.uniform(0.5, 1.5, array.shape) if "var" in name else rng.normal(0, 0.3, array.shape)
    for name, array in network.params.items():
        if name[0] in "bg":
            array += rng.normal(0, 0.2, array.shape).astype("float32")
    return network


def of_the_zoo(name):
    """Return a network by name for small images, stirred: weights of about the usual size, in little time.

    To draw 60 million numbers takes long: 100,003 are repeated, a prime, so that layers and filters differ.
    """
    size = 32 if name.startswith("VGG") else 16  # which halves it five times
    with unfilled():
        network = build_for(name, (3, size, size), 7)
    drawn = np.random.default_rng(0).normal(0, 0.05, 100_003).astype("float32")
    network.params.flat[...] = np.resize(drawn, network.params.flat.size)
    return stirred(network)


def running(model):
    """Return onnxruntime with a model, a file's name or bytes, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def session(network, file):
    export_onnx(network, file)
    return running(file)


def assert_same_outputs(network, file, prepared=lambda x: x, batches=(1, 3)):
    """For batches of several sizes, within 1e-5 of the largest output."""
    run, rng = session(network, file), np.random.default_rng(1)
    for samples in batches:
        x = rng.random((samples, *network.input_dim), "float32")
        (found,) = run.run(None, {"x": x})
        expected = network.predict(prepared(x))
        assert found.shape == expected.shape
        assert 0 < float(abs(expected).max()) < np.inf
        assert float(abs(found - expected).max()) <= 1e-5 * float(abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_and_geometry(name, tmp_path):
    random.seed(0)
    assert_same_outputs(stirred(NETWORKS[name]()), tmp_path / "model.onnx")


@pytest.mark.parametrize("name", [*sorted(ZOO), "UNet"])
def test_a_network_of_the_zoo(name, tmp_path):
    assert_same_outputs(of_the_zoo(name), tmp_path / "model.onnx", batches=(2,))


CASES = {
    "ceil": lambda: ((2, 8, 7), Pooling(3, 2, 2, 1, rounding="ceil"), AveragePooling(2, 2, 2, rounding="ceil")),
    "counted padding": lambda: ((2, 8, 7), AveragePooling(3, 3, 2, (1, 0, 0, 1), count_padding=True)),
    "own pixels": lambda: ((2, 8, 7), AveragePooling(3, 3, 2, (1, 0, 0, 1))),
    "counted in part": lambda: ((2, 8, 7), AveragePooling(3, 3, 2, (1, 1, 0, 1), 1, "ceil", count_padding=True)),
    "dilated means": lambda: ((2, 8, 7), AveragePooling(3, 2, 1, 0, (1, 2)), AveragePooling(2, 2, 2, (1, 0, 0, 1), 2)),
    "dilated pooling": lambda: ((2, 9, 9), Pooling(2, 3, 2, (0, 1), (2, 1))),
    "same": lambda: ((2, 8, 7), Convolution.of(2, 4, (3, 2), (2, 1), "same", (1, 2), groups=2)),
    "transposed": lambda: ((2, 5, 4), ConvolutionTranspose.of(2, 3, (3, 2), 2, (1, 0), (2, 1))),
    "no bias": lambda: ((2, 5, 4), Convolution.of(2, 3, 3, bias=False), ConvolutionTranspose.of(3, 2, 2, bias=False)),
    "depthwise": lambda: ((4, 5, 4), Convolution.of(4, 8, 3, groups=4), Relu6()),
    "layer normalization": lambda: ((3, 4, 2), LayerNormalization.of(3), LayerNormalization.of((3, 4, 2)), Gelu()),
    "statistics by pixel": lambda: ((3, 2, 2), BatchNormalization.of(12), Relu()),
    "axes": lambda: ((3, 4, 2), Reshape((3, 8, 1)), Permute((2, 1, 3)), Softmax()),
    "dropout": lambda: ((3, 2, 2), Dropout(0.25), Dropout(0.5, inverted=True)),
    "nested": lambda: (
        (3, 4, 4),
        Residual(Sequential(Convolution.of(3, 3, 1), Residual(Relu())), Convolution.of(3, 3, 1)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_arguments_of_layers(case, tmp_path):
    random.seed(0)
    shape, *layers = CASES[case]()
    features = int(np.prod(Sequential(*layers).output_shape(shape)))
    network = stirred(Network(Sequential(*layers, Affine.of(features, 3)), shape))
    assert_same_outputs(network, tmp_path / "model.onnx")


def test_windows_of_poolings():
    """All that hold a pixel everywhere: dilated, padded beyond their own size, fitting only in part."""
    rng, written = np.random.default_rng(0), set()
    x = rng.standard_normal((2, 2, 8, 7), "float32")
    for _ in range(200):
        (height, width), stride, dilation = rng.integers(1, 4, (3, 2)).tolist()
        pad, rounding = tuple(rng.integers(0, 4, 4).tolist()), str(rng.choice(["floor", "ceil"]))
        window = height, width, stride, pad, dilation, rounding
        for layer in (Pooling(*window), AveragePooling(*window), AveragePooling(*window, count_padding=True)):
            try:
                expected = layer.forward(x)
            except ValueError:  # a window holds only padding, or none fits
                continue
            model = to_onnx(Network(Sequential(layer, Flatten()), x.shape[1:]))
            (found,) = running(model.SerializeToString()).run(None, {"x": x})
            np.testing.assert_allclose(found, expected.reshape(2, -1), rtol=0, atol=1e-5, err_msg=repr(layer))
            written.add((type(layer), model.graph.node[0].op_type))
    assert written == {
        (Pooling, "MaxPool"), (Pooling, "Pad"), (AveragePooling, "AveragePool"), (AveragePooling, "Conv")
    }  # fmt: skip


@pytest.mark.parametrize("rows", [False, True])
def test_the_normalization_of_inputs_is_inside(rows, tmp_path):
    """Images, and images as the rows that a network of affine layers takes."""
    known = Normalization((0.4, 0.5), (0.2, 0.3))
    layers = [] if rows else [Convolution.of(2, 4, 3), GlobalAveragePooling()]
    layers = Sequential(*layers, Affine.of(50 if rows else 4, 3))
    config = {"normalization": known.as_config(), "input_dim": [2, 5, 5], "classes": ["a", "b", "c"]}
    network = Network(layers, (50,) if rows else (2, 5, 5), config)

    def prepared(x):
        images = x.reshape(-1, 2, 5, 5).transpose(0, 2, 3, 1)
        return known.apply(images).transpose(0, 3, 1, 2).reshape(x.shape)

    assert_same_outputs(network, tmp_path / "model.onnx", prepared)
    about = {prop.key: prop.value for prop in to_onnx(network).metadata_props}
    assert (about["name"], json.loads(about["classes"])) == ("Network", ["a", "b", "c"])


def test_numbers_are_in_their_own_unit(tmp_path):
    config = {"target_normalization": {"mean": [100.0, -5.0], "std": [10.0, 2.0]}}
    network = Network(Sequential(Affine.of(4, 2)), (4,), config, loss="mean-squared")
    x = np.random.default_rng(0).random((3, 4), "float32")
    run = session(network, tmp_path / "model.onnx")
    assert [output.name for output in run.get_outputs()] == ["values"]
    np.testing.assert_allclose(run.run(None, {"x": x})[0], network.predict(x) * [10, 2] + [100, -5], rtol=1e-6)


def test_a_network_in_half_precision_is_written_in_float32(tmp_path):
    network = Network(Sequential(Affine.of(4, 2)), (4,)).astype("float16")
    x = np.random.default_rng(0).random((3, 4), "float32")
    (found,) = session(network, tmp_path / "model.onnx").run(None, {"x": x})
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, network.predict(x.astype("float16")), atol=3e-3)


class Square(Layer):
    def forward(self, x):
        return self.save(x * x, x)


class LoudRelu(Relu):
    def forward(self, x):
        return super().forward(2 * x)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Square(), "the layer Square1, Square.*is no operator of ONNX that xpnet knows"),
        (LoudRelu(), "the layer LoudRelu1, LoudRelu.*is no operator of ONNX that xpnet knows"),
        (AveragePooling(2, 2, pad=2), "the windows of output row 0 hold nothing but padding"),
    ],
)
def test_a_layer_without_a_counterpart_is_named(layer, message, tmp_path):
    features = int(np.prod(layer.output_shape((3, 4, 4))))
    network = Network(Sequential(layer, Affine.of(features, 2)), (3, 4, 4))
    with pytest.raises(ValueError, match=message):
        export_onnx(network, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = build_for("LeNet5", (1, 28, 28), 10)
    network.save_params("model.safetensors")
    result = xpnet("export", "model.safetensors", "--onnx")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("LeNet5 as ONNX in model.onnx, 2")
    assert xpnet("export", "model.safetensors", "--onnx", "--out", "other.onnx").code == 0
    assert (tmp_path / "other.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()
