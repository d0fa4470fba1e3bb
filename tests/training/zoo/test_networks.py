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
from training.profile.meter import example_batch
from training.zoo import NETWORKS, PLACE_NETWORKS, layers_of, usual_size
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


def undrawn(name, *size):
    """Return the layers of a network without drawing, or even touching, its weights."""
    with unfilled():
        return layers_of(name, *(size or usual_size(name)))


def count(layers):
    return sum(array.size for array in layers.params.values())


def test_every_network_has_a_published_number_of_parameters():
    assert {*PARAMETERS, *IN_ALL_BLOCKS} == set(NETWORKS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_parameters_are_as_many_as_published(name):
    assert count(undrawn(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", IN_ALL_BLOCKS)
def test_the_parameters_of_small_resnets_are_as_many_as_published(name):
    layers = undrawn(name)
    biases = sum(layer.b.size for _, layer in walk(layers) if isinstance(layer, Convolution))
    shortcuts = sum(count(layer) for place, layer in walk(layers) if place.endswith("shortcut"))
    of_shortcuts = 32 + 64  # biases in shortcuts, counted in both
    assert count(layers) - biases - shortcuts + of_shortcuts == IN_ALL_BLOCKS[name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 48)])
def test_every_network_takes_small_images_and_any_number_of_classes(name, shape):
    assert undrawn(name, shape, 7).output_shape(shape) == (7,)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smallest_images_are_those_that_the_page_names(name):
    page = {"VGG11": 17, "VGG16": 17, "LeNet5": 12, "MixerB": 4, "MixerS": 4, "ViTTiny": 4}
    size = page.get(name, 1)
    assert undrawn(name, (3, size, size), 7).output_shape((3, size, size)) == (7,)
    if size > 1:
        with pytest.raises(ValueError, match=r"a window of \d does not fit the image"):
            undrawn(name, (3, size - 1, size - 1), 7)


def test_images_that_are_too_small_are_refused_in_words():
    with pytest.raises(ValueError, match=r"layer 'Convolution2', Convolution\(6 → 16.*window"):
        build_for("LeNet5", (1, 4, 4), 10)


def test_rows_are_refused_in_words():
    with pytest.raises(ValueError, match=r"ResNet20 takes images \(C, H, W\), got inputs of \(9,\)"):
        build_for("ResNet20", (9,), 10)


def test_a_network_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"'ResNet20'.*'UNet'.*'CharLSTM'"):
        build_for("ResNet21", (3, 32, 32), 10)


@pytest.mark.parametrize(("name", "shape", "classes", "output", "parameters"), [
    # Ronneberger's with batch normalizations, as in test_unet.py, for 1 channel in the place of 3
    ("UNet", (1, 512, 512), 2, (2, 512, 512), 31_037_698 - 2 * 64 * 9),
    # an embedding, weights and two biases of the gates, and scores
    ("CharRNN", (50,), 65, (50, 65), 65 * 32 + (32 + 128 + 2) * 128 + 129 * 65),
    ("CharLSTM", (50,), 65, (50, 65), 65 * 32 + 4 * (32 + 128 + 2) * 128 + 129 * 65),
    ("CharGRU", (50,), 65, (50, 65), 65 * 32 + 3 * (32 + 128 + 2) * 128 + 129 * 65),
    # an embedding, blocks of two normalizations, attention and a network over positions, a normalization, and scores
    ("CharTransformer", (50,), 65, (50, 65),
     65 * 128 + 2 * (2 * 256 + 4 * 129 * 128 + 129 * 512 + 513 * 128) + 256 + 129 * 65),
])  # fmt: skip
def test_networks_that_score_pixels_and_steps(name, shape, classes, output, parameters):
    assert usual_size(name) == (shape, classes)
    layers = undrawn(name)
    assert (layers.output_shape(shape), count(layers)) == (output, parameters)


def test_all_of_them_have_their_numbers_here():
    assert set(PLACE_NETWORKS) == {"UNet", "CharRNN", "CharLSTM", "CharGRU", "CharTransformer"}


@pytest.mark.parametrize(("name", "shape", "classes"), [
    ("UNet", (3, 16, 32), 4), ("CharRNN", (7,), 5), ("CharLSTM", (7,), 5), ("CharGRU", (7,), 5),
    ("CharTransformer", (7,), 5),
])  # fmt: skip
def test_one_of_them_comes_back_from_its_file(name, shape, classes, tmp_path):
    random.seed(3)
    network = build_for(name, shape, classes)
    network.save_params(tmp_path / "model.safetensors")
    again = load_network(tmp_path / "model.safetensors")
    assert (again.title, again.config, repr(again)) == (name, {"name": name}, repr(network))
    x, t = example_batch(network, 2)
    np.testing.assert_array_equal(again.predict(x), network.predict(x))
    assert np.isfinite(float(network.loss(x, t)))


@pytest.mark.parametrize(("name", "shape", "classes", "words"), [
    ("UNet", (9,), 2, r"UNet takes images \(C, H, W\), got inputs of \(9,\)"),
    ("UNet", (1, 20, 16), 2, r"of depth 4 takes images whose sides are multiples of 16, got \(1, 20, 16\)"),
    ("UNet", (1, 16, 16), 1, "got one score per sample"),
    ("CharGRU", (1, 28, 28), 10, r"CharGRU takes sequences of indices \(T,\), got inputs of \(1, 28, 28\)"),
    ("CharTransformer", (1025,), 9, r"PositionalEncoding\(1024 x 128\).*up to 1024.*got \(1025, 128\)"),
    ("CharGRU", (50,), 0, "classes must be a whole number of at least 1|classes must be a whole number from 1"),
])  # fmt: skip
def test_what_they_do_not_take_is_refused_in_words(name, shape, classes, words):
    with pytest.raises(ValueError, match=words):
        build_for(name, shape, classes)


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
