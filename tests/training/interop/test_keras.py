"""Keras's twins of networks: weights saved by Keras 3, and the same forward."""

import importlib.util

import numpy as np
import pytest

from backend import random
from layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    Flatten,
    LayerNormalization,
    LeakyRelu,
    MultiHeadAttention,
    Permute,
    PositionalEncoding,
    PositionwiseAffine,
    Relu,
    Reshape,
    Residual,
    Sequential,
    Skip,
    Tanh,
)
from tests.support.networks import KERAS_EXAMPLES
from training.interop import from_keras
from training.models import Network, build_for
from training.zoo import CHARACTER_NETWORKS

HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_KERAS = all(importlib.util.find_spec(name) for name in ("keras", "h5py"))
HAS_KERAS = HAS_KERAS and (HAS_TORCH or importlib.util.find_spec("jax") is not None)
if HAS_KERAS:
    from tests.support import keras_twins as twins

    if HAS_TORCH:
        import torch

        torch.set_num_threads(1)  # its threads and xpnet's would wait for each other

pytestmark = [
    pytest.mark.skipif(not HAS_KERAS, reason="keras, h5py, and torch or jax, by which it computes, are not installed"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras's calls of torch
]


def assert_same_forward(network, tmp_path, samples=3):
    """Give the network what Keras saves; compare within 1e-5 of the largest output, or 1."""
    assert_same_as(twins.twin(network), network, tmp_path, samples)


def assert_same_as(model, network, tmp_path, samples=3):
    model.save_weights(tmp_path / "model.weights.h5")
    assert from_keras(network, tmp_path / "model.weights.h5") is network
    x = twins.samples_of(network, samples, seed=2)
    expected, found = twins.computed(model, x), network.predict(x)
    assert found.shape == expected.shape
    assert float(abs(found - expected).max()) <= 1e-5 * max(1, float(abs(expected).max()))


@pytest.mark.parametrize(
    "name", ["LeNet5", "ResNet18", "ResNet20", "WideResNet16-4", "MobileNetV2", "MixerS", "ViTTiny", "UNet"]
)
def test_a_network_of_the_zoo(name, tmp_path):
    random.seed(0)
    assert_same_forward(build_for(name, (3, 32, 32), 7), tmp_path)


@pytest.mark.parametrize("name", CHARACTER_NETWORKS)
def test_a_network_of_characters(name, tmp_path):
    random.seed(0)
    assert_same_forward(build_for(name, (12,), 9), tmp_path)


CASES = {
    **KERAS_EXAMPLES,
    "two of each recurrent layer": lambda: Network(
        Sequential(
            *[kind.of(4, 4) for kind in (LSTM, GRU, RNN, GRU, LSTM, RNN)], Dropout(0.3), PositionwiseAffine.of(4, 3)
        ),
        (6, 4),
    ),
    "attention of numbers": lambda: Network(
        Sequential(
            PositionalEncoding(5, 6),
            Residual(MultiHeadAttention.of(6, 3)),
            Skip(Sequential(PositionwiseAffine.of(6, 2, bias=False), Tanh())),
            MultiHeadAttention.of(8, 1, causal=True),
            Permute((2, 1)),
            Affine.of(40, 3),
        ),
        (5, 6),
    ),
    "images as a sequence, and back": lambda: Network(
        Sequential(
            Convolution.of(2, 4, 1),
            Reshape((4, 6)),
            Permute((2, 1)),
            GRU.of(4, 5),
            Permute((2, 1)),
            Reshape((5, 2, 3)),
            Convolution.of(5, 2, 1),
            Affine.of(12, 3),
        ),
        (2, 2, 3),
    ),
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


def test_layers_of_sequences_without_biases(tmp_path):
    import keras

    k = keras.layers
    x = keras.Input((5, 6))
    y = k.MultiHeadAttention(2, 3, use_bias=False)(x, x)
    for kind in (k.SimpleRNN, k.LSTM, k.GRU):
        y = kind(4, use_bias=False, return_sequences=True)(y)
    model = keras.Model(x, k.Dense(2, use_bias=False)(y))
    layers = [MultiHeadAttention.of(6, 2), RNN.of(6, 4), LSTM.of(4, 4), GRU.of(4, 4), PositionwiseAffine.of(4, 2)]
    network = Network(Sequential(*layers), (5, 6))
    network.params.flat[...] = 1
    assert_same_as(model, network, tmp_path)


def test_a_gru_that_resets_before_the_product_is_refused(tmp_path):
    import keras

    model = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4, return_sequences=True, reset_after=False)])
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match=r"GRU1, .*'layers/gru', that of reset_after=False"):
        from_keras(Network(Sequential(GRU.of(3, 4)), (5, 3)), tmp_path / "model.weights.h5")


def test_a_layer_of_cells_and_one_of_two_directions_go_by_names(tmp_path):
    import keras

    k = keras.layers
    model = keras.Sequential(
        [keras.Input((5, 3)), k.RNN(k.LSTMCell(4), return_sequences=True), k.Bidirectional(k.LSTM(4)), k.Dense(2)]
    )
    model.save_weights(tmp_path / "model.weights.h5")
    network = Network(Sequential(LSTM.of(3, 4), PositionwiseAffine.of(4, 2)), (5, 3))
    with pytest.raises(ValueError, match=r"layers in 'layers', 'layers/bidirectional', whose order it does not say"):
        from_keras(network, tmp_path / "model.weights.h5")
    model = keras.Sequential([keras.Input((5, 3)), model.layers[0], k.Dense(2)])
    model.save_weights(tmp_path / "model.weights.h5")
    from_keras(network, tmp_path / "model.weights.h5", {"LSTM1": "layers/rnn", "PositionwiseAffine1": "layers/dense"})
    x = np.random.default_rng(0).random((3, 5, 3), "float32")
    np.testing.assert_allclose(network.predict(x), twins.computed(model, x), atol=1e-6)
