"""Five steps of SGD from the same weights and batches end in PyTorch's weights, whichever of the two drew them."""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from backend import random
from layers import GRU, LSTM, BatchNormalization, Dropout, Embedding, PositionwiseAffine, Sequential
from layers.base import walk
from tests.support.torch_examples import assert_near, batch
from training.interop import from_torch, to_torch
from training.models import Network, build_for
from training.optim import Momentum
from training.zoo.mixer import mixer
from training.zoo.transformer import char_transformer, vision_transformer
from training.zoo.unet import unet

HAS_TORCH = importlib.util.find_spec("torch") is not None
if HAS_TORCH:
    import torch

    from tests.support import torch_sequence_twins as sequence_twins
    from tests.support import torch_twins as twins

    torch.set_num_threads(1)  # its threads and xpnet's would wait for each other

pytestmark = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; the extra `bench` has it")


class Pair(NamedTuple):
    """What makes a network and its twin, the learning rate, and the samples of a batch."""

    network: Callable[[], Network]
    twin: Callable[[], Any]
    rate: float
    samples: int = 16


def of_zoo(name, rate, size=32, samples=16):
    shape = 3, size, size
    return Pair(lambda: build_for(name, shape, 7), lambda: twins.TWINS[name](), rate, samples)


def recurrent():
    layers = Embedding.of(11, 6), LSTM.of(6, 9), GRU.of(9, 9), PositionwiseAffine.of(9, 5)
    return Network(Sequential(*layers), (7,))


PAIRS = {
    "LeNet5": of_zoo("LeNet5", 0.05),
    "VGG11": of_zoo("VGG11", 0.001, samples=8),
    "ResNet18": of_zoo("ResNet18", 0.001),
    "ResNet20": of_zoo("ResNet20", 0.01, 16),
    "MobileNetV2": of_zoo("MobileNetV2", 0.001),
    "WideResNet16-4": of_zoo("WideResNet16-4", 0.01, 12, 8),
    "Mixer": Pair(
        lambda: Network(mixer(2, 8, 6, 12, (3, 16, 16), 7), (3, 16, 16)), lambda: twins.mixer(2, 8, 6, 12, 16, 7), 0.05
    ),
    "vision transformer": Pair(
        lambda: Network(vision_transformer(2, 12, 3, 20, (3, 8, 8), 7), (3, 8, 8)),
        lambda: sequence_twins.vision_transformer(2, 12, 3, 20, 4, 7),
        0.05,
    ),
    "causal transformer": Pair(
        lambda: Network(char_transformer(11, 12, 20, depth=2, heads=3), (9,)),
        lambda: sequence_twins.char_transformer(11, 12, 20, depth=2, heads=3),
        0.05,
    ),
    "LSTM and GRU": Pair(recurrent, lambda: sequence_twins.recurrent(11, 6, 9, 5), 0.1),
    "U-Net": Pair(
        lambda: Network(unet((3, 8, 12), 4, filters=4, depth=2), (3, 8, 12)), lambda: twins.unet(3, 4, 4, 2), 0.05
    ),
}
"""By name; the small ones have all kinds of layers of those in the zoo."""

IN_FLOAT64 = ("VGG11", "ResNet18", "ResNet20", "MobileNetV2", "WideResNet16-4", "U-Net")
"""In float32 a number within rounding of 0 before a ReLU is now and then positive in one of the two alone: in a deep
network with batch normalization weights then differ by up to 1e-3, unless they move less than that."""


@pytest.mark.parametrize("direction", ["from_torch", "to_torch"])
@pytest.mark.parametrize("name", PAIRS)
def test_five_steps_of_sgd_are_pytorchs(name, direction):
    """Without dropout, whose masks differ; weights, running statistics and the forward in evaluation."""
    pair = PAIRS[name]
    dtype, tolerance = ("float64", 1e-9) if name in IN_FLOAT64 else ("float32", 1e-4)
    torch.manual_seed(5)
    random.seed(5)
    network, twin = pair.network().astype(dtype), twins.renewed(pair.twin()).to(getattr(torch, dtype))
    if direction == "from_torch":
        from_torch(network, twin.state_dict())
    else:
        give_to(twin, network)
    without_dropout(network, twin)
    before = {key: parameter.detach().numpy().copy() for key, parameter in twin.named_parameters()}
    batches = [batch(network, pair.samples, seed, dtype) for seed in range(6)]
    optimizer = Momentum(pair.rate)
    for x, t in batches[:5]:
        optimizer.update(network.params, network.gradient(x, t))
    twins.take_steps(twin, batches[:5], pair.rate)
    expected = {key: array.numpy() for key, array in twin.state_dict().items() if array.ndim}
    found = to_torch(network)
    assert {key for key, array in found.items() if array.ndim} == set(expected)
    for key, array in expected.items():
        assert_near(found[key], array, tolerance)
    moved = [float(abs(expected[key] - array).max()) for key, array in before.items()]
    assert np.median(moved) > 10 * tolerance, "the steps are too small to tell the two apart"
    x, _ = batches[5]
    assert_near(network.predict(x), twins.scores(twin, x), tolerance)


def give_to(twin, network):
    """Give a twin the weights of a network, whose normalizations get other numbers than those of new layers."""
    for _, layer in walk(network.layers):
        if isinstance(layer, BatchNormalization):
            layer.unbiased = True  # as PyTorch's are; to_torch changes no network
            layer.running_mean += random.normal(layer.running_mean.shape, 0.1)
            layer.running_var += abs(random.normal(layer.running_var.shape, 0.1))
    for name, array in network.params.items():
        if name.startswith(("gamma", "beta")):
            array += random.normal(array.shape, 0.1)
    twin.load_state_dict({key: torch.from_numpy(array) for key, array in to_torch(network).items()})


def without_dropout(network, twin):
    for _, layer in walk(network.layers):
        if isinstance(layer, Dropout):
            layer.dropout_ratio = 0.0
    for module in twin.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
