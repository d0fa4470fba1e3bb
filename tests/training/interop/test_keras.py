"""Keras's twins of networks: weights saved by Keras 3, and the same forward."""

import importlib.util

import numpy as np
import pytest

from backend import random
from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    Flatten,
    LayerNormalization,
    LeakyRelu,
    Relu,
    Residual,
    Sequential,
    Skip,
)
from tests.support.networks import keras_example
from training.interop import from_keras
from training.models import Network, build_for

HAS_KERAS = all(importlib.util.find_spec(name) for name in ("keras", "torch", "h5py"))
if HAS_KERAS:
    import torch

    from tests.support import keras_twins as twins

    torch.set_num_threads(1)  # its threads and xpnet's would wait for each other

pytestmark = [
    pytest.mark.skipif(not HAS_KERAS, reason="keras, h5py and torch, by which Keras computes, are not installed"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras's calls of torch
]


def assert_same_forward(network, tmp_path, samples=3):
    """Give the network what Keras saves; compare within 1e-5 of the largest output, or 1."""
    model = twins.twin(network)
    model.save_weights(tmp_path / "model.weights.h5")
    assert from_keras(network, tmp_path / "model.weights.h5") is network
    x = np.random.default_rng(2).standard_normal((samples, *network.input_dim)).astype("float32")
    expected, found = twins.computed(model, x), network.predict(x)
    assert found.shape == expected.shape
    assert float(abs(found - expected).max()) <= 1e-5 * max(1, float(abs(expected).max()))


@pytest.mark.parametrize("name", ["LeNet5", "ResNet18", "ResNet20", "MobileNetV2", "MixerS"])
def test_a_network_of_the_zoo(name, tmp_path):
    random.seed(0)
    assert_same_forward(build_for(name, (3, 32, 32), 7), tmp_path)


CASES = {
    "the example": keras_example,
    "groups, dilation, multiplied channels": lambda: Network(
        Sequential(
            Convolution.of(4, 6, (3, 2), dilation=2, groups=2),
            Convolution.of(6, 12, 3, pad="same", groups=6, bias=False),
            LeakyRelu(0.3),
            Affine.of(12 * 5 * 6, 3),
        ),
        (4, 9, 8),
    ),
    "images of one channel": lambda: Network(
        Sequential(Convolution.of(1, 1, 3), Convolution.of(1, 2, 3), Affine.of(2 * 3 * 4, 3, bias=False)), (1, 7, 8)
    ),
    "transposed": lambda: Network(
        Sequential(ConvolutionTranspose.of(2, 3, (3, 2), stride=2), Convolution.of(3, 2, 1), Affine.of(2 * 9 * 8, 3)),
        (2, 4, 4),
    ),
    "whole images normalized": lambda: Network(
        Sequential(
            LayerNormalization.of((2, 3, 4)), Flatten(), Dropout(0.3), LayerNormalization.of(24), Affine.of(24, 3)
        ),
        (2, 3, 4),
    ),
    "skip": lambda: Network(
        Sequential(Skip(Sequential(Convolution.of(2, 3, 3, pad=1), Relu())), Convolution.of(5, 2, 1), Affine.of(30, 3)),
        (2, 3, 5),
    ),
    "residual of images": lambda: Network(
        Sequential(
            Residual(Sequential(Convolution.of(2, 4, 3, pad=1), Convolution.of(4, 4, 1)), Convolution.of(2, 4, 1)),
            Affine.of(4 * 3 * 5, 3),
        ),
        (2, 3, 5),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_layer_and_order(case, tmp_path):
    random.seed(0)
    assert_same_forward(CASES[case](), tmp_path)


def test_more_than_ten_layers_of_a_kind_are_taken_in_their_order(tmp_path):
    random.seed(0)
    assert_same_forward(
        Network(Sequential(*[Convolution.of(2, 2, 1) for _ in range(12)], Affine.of(4, 2)), (2, 2, 1)), tmp_path
    )


def test_normalizations_without_scale_and_shift_and_layers_of_a_model_inside(tmp_path):
    import keras

    inside = keras.Sequential([keras.layers.Dense(4), keras.layers.BatchNormalization(center=False, scale=False)])
    model = keras.Sequential([keras.Input((5,)), inside, keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((4, 5)), np.ones((4, 2)), verbose=0)  # the file has the optimizer's numbers, too
    model.save_weights(tmp_path / "model.weights.h5")
    network = Network(Sequential(Affine.of(5, 4), BatchNormalization.of(4), Affine.of(4, 2)), (5,))
    with pytest.raises(ValueError, match="names= says what belongs where"):
        from_keras(network, tmp_path / "model.weights.h5")
    network.layers["BatchNormalization1"].gamma[...] = 5
    start = "layers/sequential/layers"
    names = {
        "Affine1": f"{start}/dense",
        "BatchNormalization1": f"{start}/batch_normalization",
        "Affine2": "layers/dense",
    }
    from_keras(network, tmp_path / "model.weights.h5", names)
    x = np.random.default_rng(0).random((3, 5), "float32")
    np.testing.assert_allclose(network.predict(x), twins.computed(model, x), atol=1e-6)
