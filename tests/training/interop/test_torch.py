"""PyTorch's twins of networks: weights in and out, and the same forward."""

import importlib.util

import numpy as np
import pytest

from backend import random
from layers import Affine, Convolution, ConvolutionTranspose, LayerNormalization, Sequential, Sigmoid
from tests.support.torch_examples import assert_near
from training.interop import from_torch, to_torch
from training.models import Network, build_for
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
    return build_for(name, SHAPE, CLASSES), twins.renewed(twins.TWINS[name]())


def batch(samples, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, *SHAPE), "float32"), rng.integers(0, CLASSES, samples)


@pytest.mark.parametrize("name", [
    "LeNet5", "VGG11", "VGG16", "ResNet18", "ResNet20", "ResNet32", "ResNet50", "ResNet56", "WideResNet16-4",
    "MobileNetV2",
])  # fmt: skip
def test_the_forward_is_pytorchs_within_1e_5(name):
    network, twin = pair(name)
    from_torch(network, twin.state_dict())
    x, _ = batch(4)
    assert_near(network.predict(x), twins.scores(twin, x), 1e-5)


@pytest.mark.parametrize("name", ["LeNet5", "ResNet18", "ResNet20"])
def test_weights_go_back_to_pytorch(name):
    network, twin = pair(name)
    random.seed(1)
    for array in network.state.values():
        array += abs(random.normal(array.shape, 0.1))
    twin.load_state_dict({key: torch.from_numpy(array) for key, array in to_torch(network).items()})
    x, _ = batch(4)
    assert_near(network.predict(x), twins.scores(twin, x), 1e-5)


def test_a_file_of_safetensors_has_its_names_in_another_order(tmp_path):
    from safetensors.torch import save_file

    network, twin = pair("ResNet18")
    save_file(twin.state_dict(), tmp_path / "resnet18.safetensors")
    from_torch(network, tmp_path / "resnet18.safetensors")
    x, _ = batch(2)
    assert_near(network.predict(x), twins.scores(twin, x), 1e-5)


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
