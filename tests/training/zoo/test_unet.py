"""U-Net: its published number of parameters, shapes, what onnxruntime computes of it, and squares that it finds."""

import importlib.util

import numpy as np
import pytest

from backend import asarray, asnumpy, random
from layers import SoftmaxWithLoss
from layers.initializers import unfilled
from training.models import Network
from training.models.metrics import IoU
from training.optim.optimizers import Adam
from training.zoo.unet import unet

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


def test_the_parameters_are_as_many_as_published():
    """As of the U-Net with batch normalizations that is most used in PyTorch, for 3 channels and 2 classes."""
    with unfilled():
        layers = unet((3, 512, 512), 2)
    assert sum(array.size for array in layers.params.values()) == 31_037_698
    assert layers.output_shape((3, 512, 512)) == (2, 512, 512)


def test_images_that_cannot_be_halved_so_often_are_refused():
    with pytest.raises(ValueError, match=r"of depth 3 takes images whose sides are multiples of 8, got \(1, 16, 20\)"):
        unet((1, 16, 20), depth=3)


@pytest.mark.parametrize(("given", "error", "words"), [
    ({"depth": -1}, ValueError, "depth must be a whole number from 0 to 16, got -1"),
    ({"depth": 1.5}, TypeError, "depth must be a whole number from 0 to 16, got 1.5"),
    ({"shape": "abc"}, TypeError, r"shape\[0\] must be a whole number of at least 1, got 'abc'"),
    ({"shape": (16, 16)}, ValueError, r"shape must be 3 whole numbers, got \(16, 16\)"),
    ({"shape": (1, 0, 16)}, ValueError, r"shape\[1\] must be a whole number of at least 1, got 0"),
    ({"classes": 0}, ValueError, "classes must be a whole number from 1 to .*, got 0"),
    ({"filters": 2.0}, TypeError, "filters must be a whole number from 1 to .*, got 2.0"),
])  # fmt: skip
def test_wrong_arguments_are_named(given, error, words):
    with pytest.raises(error, match=words):
        unet(**given)


@pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnxruntime are not installed")
def test_onnxruntime_computes_the_same(tmp_path):
    import onnxruntime

    from training.interop.onnx_export import export_onnx

    random.seed(0)
    network = Network(unet((3, 8, 12), 4, 4, 2), (3, 8, 12))
    rng = np.random.default_rng(0)
    for name, array in network.state.items():
        array[...] = rng.uniform(0.5, 1.5, array.shape) if "var" in name else rng.normal(0, 0.3, array.shape)
    export_onnx(network, tmp_path / "unet.onnx")
    run = onnxruntime.InferenceSession(tmp_path / "unet.onnx", providers=["CPUExecutionProvider"])
    x = rng.random((2, 3, 8, 12), "float32")
    (expected,) = run.run(None, {"x": x})
    found = network.predict(x)
    assert float(abs(found - expected).max()) <= 1e-5 * max(1, float(abs(expected).max()))


def squares(samples, seed):
    """Return noise with a brighter square, 16x16, and where the square is."""
    rng = np.random.default_rng(seed)
    x, t = rng.normal(0, 0.3, (samples, 1, 16, 16)).astype("float32"), np.zeros((samples, 16, 16), "int32")
    for image, label in zip(x, t, strict=True):
        row, column, size = rng.integers(0, 9), rng.integers(0, 9), rng.integers(4, 8)
        image[:, row : row + size, column : column + size] += 1
        label[row : row + size, column : column + size] = 1
    return asarray(x), asarray(t)


def test_it_finds_squares(device):
    random.seed(0)
    layers, loss, optimizer = unet((1, 16, 16), 2, 4, 2), SoftmaxWithLoss(), Adam(lr=0.01)
    layers.train()
    x, t = squares(16, 0)
    for _ in range(40):
        loss.forward(layers.forward(x), t)
        layers.backward(loss.backward())
        optimizer.update(layers.params, layers.grads)
    layers.eval()
    x, t = squares(16, 1)
    metric = IoU()
    assert metric.value(asnumpy(metric.sums(loss, layers.forward(x), t))) > 0.85
