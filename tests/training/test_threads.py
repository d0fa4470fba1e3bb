"""Parameters after 50 steps of every kind of network, by the C kernels: the same bits for any number of threads."""

import numpy as np
import pytest

import backend
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
    Relu6,
    Residual,
    Sequential,
)
from tests.support.checks import thread_limit, watched_shares
from training.data import load
from training.models import MODELS, Network, build
from training.optim.optimizers import by_name
from training.zoo import char_gru, char_lstm, char_transformer
from training.zoo.blocks import conv_norm
from training.zoo.mobilenet import _block

STEPS, BATCH = 50, 7
SIZES = {
    "TwoLayerNet": {"input_size": 784, "hidden_size": 30, "output_size": 10},
    "MultiLayerNet": {"input_size": 784, "hidden_size_list": [30, 20], "output_size": 10},
}


@pytest.fixture(scope="module")
def digits():
    return load("mnist10k")


def residual():
    """Return a network of normalizations, poolings and convolutions of other kinds than the models'."""
    body = Sequential(Convolution.of(6, 6, 3, pad=1, groups=6), BatchNormalization.of(6), Relu())
    layers = [
        Convolution.of(1, 6, 5, stride=2, pad=2), BatchNormalization.of(6), Relu(), Pooling(3, 3, stride=2),
        Residual(body), Relu(), Convolution.of(6, 10, 3, pad=2, dilation=2), AveragePooling(2, 2, stride=2), Gelu(),
        GlobalAveragePooling(), Affine.of(10, 33), LayerNormalization.of(33), Dropout(0.3), Affine.of(33, 10),
    ]  # fmt: skip
    return Network(Sequential(*layers), (1, 28, 28))


def mobile():
    """Return the blocks of MobileNetV2: one that is added to its input, and one that halves the image."""
    layers = [*conv_norm(1, 8, 3, stride=2), Relu6(), *_block(8, 8, 3, 1), *_block(8, 12, 3, 2), GlobalAveragePooling()]
    return Network(Sequential(*layers, Affine.of(12, 10)), (1, 28, 28))


NETWORKS = {
    "residual": residual,
    "MobileNetV2": mobile,
    "CharLSTM": lambda: Network(char_lstm(11, size=6, hidden=9, depth=2), (5,)),
    "CharGRU": lambda: Network(char_gru(11, size=6, hidden=9, dropout=0.2), (5,)),
    "CharTransformer": lambda: Network(char_transformer(11, size=12, hidden=20, depth=1, heads=3), (5,)),
}
"""Small networks of the layers that the models do not have."""


def samples(network, digits, step):
    """Return a batch for a step: pieces of random text and the characters that follow, or images and labels."""
    if network.takes_indices:
        shape = (BATCH, 1 + network.input_dim[0])
        pieces = np.random.default_rng(step).integers(0, network.index_count, shape, "int32")
        return pieces[:, :-1], pieces[:, 1:]
    batch = slice(step * BATCH, (step + 1) * BATCH)
    return digits.train_images[batch].astype("float32") / 255, digits.train_labels[batch].astype("int32")


def trained(model, digits, threads):
    """Return the bytes of parameters and state after training with so many threads, which share the kernels' work."""
    backend.random.seed(0)
    network = NETWORKS[model]() if model in NETWORKS else build({"model": model, "arguments": SIZES.get(model, {})})
    optimizer = by_name("adam")
    with thread_limit(threads), watched_shares() as shares:  # small work is shared, too
        for step in range(STEPS):
            optimizer.update(network.params, network.gradient(*samples(network, digits, step)))
    assert max(shares, default=1) == threads
    arrays = {**network.params, **network.state}
    assert all(np.isfinite(array).all() for array in arrays.values())
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("model", [*MODELS, *NETWORKS])
def test_threads_change_no_bit_of_a_training(model, digits, in_c):
    expected = trained(model, digits, 1)
    for threads in (2, 3, 5):
        seen = trained(model, digits, threads)
        assert [name for name in expected if seen[name] != expected[name]] == []
