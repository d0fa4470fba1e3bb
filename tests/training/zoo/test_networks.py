"""The zoo: published numbers of parameters, images of every usual size, and files."""

import numpy as np
import pytest

from backend import random, xp
from layers import Convolution
from layers.base import walk
from layers.initializers import unfilled
from training.models import build_for
from training.models.loading import load_network
from training.models.network import Network
from training.zoo import NETWORKS, usual_size
from training.zoo.mixer import mixer

PARAMETERS = {
    "LeNet5": 61_706,  # 156 + 2,416 + 48,120 + 10,164 + 850
    "VGG11": 132_868_840,  # torchvision's vgg11_bn
    "VGG16": 138_365_992,  # torchvision's vgg16_bn
    "MixerB": 59_880_472,  # timm's mixer_b16_224; 59 million in table 1 of the paper
    "MixerS": 18_528_264,  # timm's mixer_s16_224; 18 million in table 1 of the paper
    "MobileNetV2": 3_504_872,  # torchvision's
    "ResNet18": 11_689_512,  # torchvision's
    "ResNet50": 25_557_032,  # torchvision's
    "ViTTiny": 5_717_416 - 2 * 192,  # timm's vit_tiny_patch16_224, less the class's position and its embedding
    "WideResNet16-4": 2_748_890,  # the paper's code; 2.7 million in its table 4
    "WideResNet28-10": 36_479_194,  # the paper's code; 36.5 million in its table 4
}
IN_ALL_BLOCKS = {"ResNet20": 269_722, "ResNet32": 464_154, "ResNet56": 853_018}
"""The paper's 0.27, 0.46 and 0.85 million: without biases before a normalization, and with shortcuts that have none."""


def layers_of(name, *size):
    """Return the layers of a network without drawing, or even touching, its weights."""
    with unfilled():
        return NETWORKS[name](*(size or usual_size(name)))


def count(layers):
    return sum(array.size for array in layers.params.values())


def test_every_network_has_a_published_number_of_parameters():
    assert {*PARAMETERS, *IN_ALL_BLOCKS} == set(NETWORKS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_parameters_are_as_many_as_published(name):
    assert count(layers_of(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", IN_ALL_BLOCKS)
def test_the_parameters_of_small_resnets_are_as_many_as_published(name):
    layers = layers_of(name)
    biases = sum(layer.b.size for _, layer in walk(layers) if isinstance(layer, Convolution))
    shortcuts = sum(count(layer) for place, layer in walk(layers) if place.endswith("shortcut"))
    of_shortcuts = 32 + 64  # biases in shortcuts, counted in both
    assert count(layers) - biases - shortcuts + of_shortcuts == IN_ALL_BLOCKS[name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 48)])
def test_every_network_takes_small_images_and_any_number_of_classes(name, shape):
    assert layers_of(name, shape, 7).output_shape(shape) == (7,)


def test_images_that_are_too_small_are_refused_in_words():
    with pytest.raises(ValueError, match=r"layer 'Convolution2', Convolution\(6 → 16.*window"):
        build_for("LeNet5", (1, 4, 4), 10)


def test_rows_are_refused_in_words():
    with pytest.raises(ValueError, match=r"ResNet20 takes images \(C, H, W\), got inputs of \(9,\)"):
        build_for("ResNet20", (9,), 10)


def test_a_network_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match="'ResNet20'"):
        build_for("ResNet21", (3, 32, 32), 10)


@pytest.mark.parametrize("name", ["LeNet5", "ResNet20", "WideResNet16-4", "MobileNetV2"])
def test_a_network_learns_and_its_file_makes_it_again(name, tmp_path):
    random.seed(3)
    network = build_for(name, (3, 20, 20), 4)
    x, t = random.normal((6, 3, 20, 20), 1.0), xp.asarray([0, 1, 2, 3, 0, 1])
    before = float(network.step_gradients(x, t))
    assert all(float(abs(array).max()) > 0 for array in network.grads.values() if array.ndim > 1)
    for _ in range(3):
        network.params.flat -= 0.02 * network.grads.flat
        after = float(network.step_gradients(x, t))
    assert after < before
    network.save_params(tmp_path / "model.safetensors")
    again = load_network(tmp_path / "model.safetensors")
    assert (again.title, type(again), again.config) == (name, Network, {"name": name})
    np.testing.assert_array_equal(again.predict(x), network.predict(x))


def test_a_mixer_learns_and_mixes_both_patches_and_channels():
    random.seed(3)
    network = Network(mixer(2, 8, 6, 12, (3, 16, 16), 4), (3, 16, 16))
    x, t = random.normal((8, 3, 16, 16), 1.0), xp.asarray([0, 1, 2, 3, 0, 1, 2, 3])
    before = float(network.step_gradients(x, t))
    for _ in range(30):
        network.step_gradients(x, t)
        network.params.flat -= 0.1 * network.grads.flat
    assert float(network.loss(x, t)) < before / 2
    shapes = {network.layers[f"Residual{number}"].body["Convolution1"].W.shape for number in (1, 2)}
    assert shapes == {(6, 16, 1, 1), (12, 8, 1, 1)}
