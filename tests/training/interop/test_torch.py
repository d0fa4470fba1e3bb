"""PyTorch's twins of networks: weights in and out, the same forward, and the same five steps of SGD."""

import importlib.util

import numpy as np
import pytest

from backend import random
from layers import (
    Affine,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    LayerNormalization,
    Sequential,
    Sigmoid,
)
from training.interop import from_torch, to_torch
from training.models import Network, build_for
from training.optim import Momentum
from training.zoo.mixer import mixer

HAS_TORCH = importlib.util.find_spec("torch") is not None
if HAS_TORCH:
    import torch

    from tests.support import torch_twins as twins

    torch.set_num_threads(1)  # its threads and xpnet's would wait for each other

pytestmark = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; the extra `bench` has it")

SHAPE, CLASSES = (3, 32, 32), 7


def pair(name):
    """Return a network and PyTorch's twin of it, with statistics that are not those of new layers."""
    torch.manual_seed(5)
    twin = twins.TWINS[name]()
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return build_for(name, SHAPE, CLASSES), twin


def batch(samples, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, *SHAPE), dtype), rng.integers(0, CLASSES, samples)


def assert_near(found, expected, tolerance):
    """Compare with the largest number expected, or 1."""
    scale = max(1, float(abs(expected).max()))
    assert float(abs(np.asarray(found) - expected).max()) <= tolerance * scale


@pytest.mark.parametrize(
    "name", ["LeNet5", "VGG11", "VGG16", "ResNet18", "ResNet20", "ResNet50", "WideResNet16-4", "MobileNetV2"]
)
def test_the_forward_is_pytorchs_within_1e_5(name):
    network, twin = pair(name)
    from_torch(network, twin.state_dict())
    x, _ = batch(4)
    with torch.no_grad():
        expected = twin.eval()(torch.from_numpy(x)).numpy()
    assert_near(network.predict(x), expected, 1e-5)


@pytest.mark.parametrize(
    ("name", "dtype", "rate", "tolerance"),
    [
        ("LeNet5", "float32", 0.01, 1e-4),
        ("VGG11", "float32", 0.0001, 1e-4),
        # In float32 a number within rounding of 0 before a ReLU is now and then positive in one of the two alone.
        # Behind it are 16 samples of a single pixel: weights then change by 1e-3, here or there, from those of float64.
        ("ResNet18", "float64", 0.001, 1e-10),
        ("ResNet20", "float32", 0.001, 1e-4),
        ("ResNet20", "float64", 0.01, 1e-10),  # float32 rounding grows by a factor of 3 a step at this rate
    ],
)
def test_five_steps_of_sgd_are_pytorchs(name, dtype, rate, tolerance):
    """Without dropout, whose masks differ; weights, running statistics and the forward in evaluation."""
    network, twin = pair(name)
    network, twin = network.astype(dtype), twin.to(getattr(torch, dtype))
    from_torch(network, twin.state_dict())
    for layer in network.layers.layers.values():
        if isinstance(layer, Dropout):
            layer.dropout_ratio = 0.0
    for module in twin.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ours, theirs = Momentum(rate), torch.optim.SGD(twin.train().parameters(), rate, momentum=0.9)
    for seed in range(5):
        x, t = batch(16, seed, dtype)
        ours.update(network.params, network.gradient(x, t))
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(t)).backward()
        theirs.step()
    expected = {key: array.numpy() for key, array in twin.state_dict().items() if array.ndim}
    found = to_torch(network)
    assert {key for key, array in found.items() if array.ndim} == set(expected)
    for key, array in expected.items():
        assert_near(found[key], array, tolerance)
    x, _ = batch(4, 9, dtype)
    with torch.no_grad():
        assert_near(network.predict(x), twin.eval()(torch.from_numpy(x)).numpy(), tolerance)


@pytest.mark.parametrize("name", ["LeNet5", "ResNet18", "ResNet20"])
def test_weights_go_back_to_pytorch(name):
    network, twin = pair(name)
    random.seed(1)
    for array in network.state.values():
        array += abs(random.normal(array.shape, 0.1))
    twin.load_state_dict({key: torch.from_numpy(array) for key, array in to_torch(network).items()})
    x, _ = batch(4)
    with torch.no_grad():
        expected = twin.eval()(torch.from_numpy(x)).numpy()
    assert_near(network.predict(x), expected, 1e-5)


def test_a_file_of_safetensors_has_its_names_in_another_order(tmp_path):
    from safetensors.torch import save_file

    network, twin = pair("ResNet18")
    save_file(twin.state_dict(), tmp_path / "resnet18.safetensors")
    from_torch(network, tmp_path / "resnet18.safetensors")
    x, _ = batch(2)
    with torch.no_grad():
        assert_near(network.predict(x), twin.eval()(torch.from_numpy(x)).numpy(), 1e-5)


def test_modules_of_other_names_are_taken_in_their_order_or_by_their_names():
    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.LayerNorm([4, 6, 6])
            self.up, self.last = torch.nn.ConvTranspose2d(4, 2, 2, 2, bias=False), torch.nn.Linear(288, 5)

        def forward(self, x):
            return self.last(self.up(self.norm(self.first(x)).sigmoid()).flatten(1))

    def network():
        layers = Convolution.of(3, 4, 3), LayerNormalization.of((4, 6, 6)), Sigmoid()
        return Network(Sequential(*layers, ConvolutionTranspose.of(4, 2, 2, 2), Affine.of(288, 5)), (3, 8, 8))

    torch.manual_seed(0)
    twin, x = Other(), torch.randn(2, 3, 8, 8)
    torch.nn.init.normal_(twin.norm.weight)
    with torch.no_grad():
        expected = twin(x).numpy()
    state = {f"module.{key}": array for key, array in twin.state_dict().items()}
    state["module.up.weight"] = state["module.up.weight"].bfloat16()
    assert_near(from_torch(network(), state).predict(x.numpy()), expected, 1e-2)
    assert_near(from_torch(network(), twin.state_dict()).predict(x.numpy()), expected, 1e-5)
    state = dict(reversed(twin.state_dict().items()))
    names = {"Convolution1": "first", "LayerNormalization1": "norm", "ConvolutionTranspose1": "up", "Affine1": "last"}
    by_name = from_torch(network(), state, names)
    assert_near(by_name.predict(x.numpy()), expected, 1e-5)
    twin.load_state_dict(
        {key: torch.from_numpy(array) for key, array in to_torch(by_name, names).items()}, strict=False
    )


def test_a_small_mixer_is_pytorchs():
    torch.manual_seed(0)
    twin, network = twins.mixer(2, 8, 6, 12, 64, CLASSES), Network(mixer(2, 8, 6, 12, SHAPE, CLASSES), SHAPE)
    for module in twin.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    from_torch(network, twin.state_dict())
    x, t = batch(4)
    logits = twin(torch.from_numpy(x))
    assert_near(network.predict(x), logits.detach().numpy(), 1e-5)
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(t)).backward()
    gradient = network.gradient(x, t)
    assert_near(gradient["W1"], twin[0].weight.grad.numpy(), 1e-5)
