"""Parameters after 50 steps of every model, by the C kernels: the same bits for any number of threads."""

import numpy as np
import pytest

import backend
from backend import tuning
from layers import (
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    Dropout,
    Gelu,
    GlobalAveragePooling,
    LayerNormalization,
    Pooling,
    Relu,
    Residual,
    Sequential,
)
from tests.support.checks import thread_limit
from training.data import load
from training.models import MODELS, Network, build
from training.optim.optimizers import by_name

STEPS, BATCH = 50, 7
SIZES = {
    "TwoLayerNet": {"input_size": 784, "hidden_size": 30, "output_size": 10},
    "MultiLayerNet": {"input_size": 784, "hidden_size_list": [30, 20], "output_size": 10},
}


@pytest.fixture(scope="module")
def digits():
    return load("mnist10k")


def residual():
    """Return a network of the layers that the models do not have."""
    body = Sequential(Convolution.of(6, 6, 3, pad=1, groups=6), BatchNormalization.of(6), Relu())
    layers = [
        Convolution.of(1, 6, 5, stride=2, pad=2), BatchNormalization.of(6), Relu(), Pooling(3, 3, stride=2),
        Residual(body), Relu(), Convolution.of(6, 10, 3, pad=2, dilation=2), AveragePooling(2, 2, stride=2), Gelu(),
        GlobalAveragePooling(), Affine.of(10, 33), LayerNormalization.of(33), Dropout(0.3), Affine.of(33, 10),
    ]  # fmt: skip
    return Network(Sequential(*layers), (1, 28, 28))


def trained(model, digits, threads):
    """Return the bytes of parameters and state after training with so many threads."""
    backend.random.seed(0)
    network = residual() if model == "residual" else build({"model": model, "arguments": SIZES.get(model, {})})
    optimizer = by_name("adam")
    images, labels = digits.train_images, digits.train_labels
    with thread_limit(threads):
        for step in range(STEPS):
            batch = slice(step * BATCH, (step + 1) * BATCH)
            x, t = images[batch].astype("float32") / 255, labels[batch].astype("int32")
            optimizer.update(network.params, network.gradient(x, t))
    arrays = {**network.params, **network.state}
    assert all(np.isfinite(array).all() for array in arrays.values())
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("model", [*MODELS, "residual"])
def test_threads_change_no_bit_of_a_training(model, digits, monkeypatch, in_c):
    """Also small work is cut, so that every kernel has as many ranges as there are threads."""
    monkeypatch.setattr(tuning, "WORTH_CUTTING", 1)
    expected = trained(model, digits, 1)
    for threads in (2, 3, 5):
        seen = trained(model, digits, threads)
        assert [name for name in expected if seen[name] != expected[name]] == []
