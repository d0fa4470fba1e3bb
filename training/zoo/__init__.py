"""Well-known networks, each a plain function that returns its layers.

``NETWORKS`` has classifiers of images by the names that ``training.models.build_for`` and ``--model`` take. All take
the shape of an image (C, H, W) and the number of classes; the defaults are those of the paper. ``PLACE_NETWORKS`` has
those that score each pixel of an image, or each step of a sequence: their names are for ``build_for`` and
``xpnet summary``.

Examples:
    >>> from training.models import Network
    >>> from training.zoo import resnet20
    >>> Network(resnet20(), (3, 32, 32)).params.flat.size
    273258
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from layers import Sequential
from layers.base import Shape
from training.zoo.blocks import Image, image_of
from training.zoo.lenet import lenet5
from training.zoo.mixer import mixer_b, mixer_s
from training.zoo.mobilenet import mobilenet_v2
from training.zoo.recurrent import char_gru, char_lstm, char_rnn
from training.zoo.resnet import resnet18, resnet20, resnet32, resnet50, resnet56
from training.zoo.transformer import char_transformer, vit_tiny
from training.zoo.unet import unet
from training.zoo.vgg import vgg11, vgg16
from training.zoo.wide_resnet import wide_resnet16_4, wide_resnet28_10

NETWORKS: dict[str, Callable[[Image, int], Sequential]] = {
    "LeNet5": lenet5,
    "VGG11": vgg11,
    "VGG16": vgg16,
    "MixerB": mixer_b,
    "MixerS": mixer_s,
    "MobileNetV2": mobilenet_v2,
    "ResNet18": resnet18,
    "ResNet20": resnet20,
    "ResNet32": resnet32,
    "ResNet50": resnet50,
    "ResNet56": resnet56,
    "ViTTiny": vit_tiny,
    "WideResNet16-4": wide_resnet16_4,
    "WideResNet28-10": wide_resnet28_10,
}
"""The networks by name."""

CHARACTER_NETWORKS: dict[str, Callable[..., Sequential]] = {
    "CharRNN": char_rnn,
    "CharLSTM": char_lstm,
    "CharGRU": char_gru,
    "CharTransformer": char_transformer,
}
"""Networks that predict the next character of a text, by name; they take the number of different characters."""

PLACE_NETWORKS: dict[str, Callable[..., Sequential]] = {"UNet": unet, **CHARACTER_NETWORKS}
"""Networks that score each pixel or step, by name."""


def layers_of(name: str, shape: Shape, classes: int) -> Sequential:
    """Return the layers of a network, of ``NETWORKS`` or ``PLACE_NETWORKS``, for inputs of a shape.

    Args:
        shape: (C, H, W), or (T,) for a network of characters, whose indices they are.
        classes: number of classes, or of different characters.

    Raises:
        ValueError: the network takes inputs of another shape.

    Examples:
        >>> from training.zoo import layers_of
        >>> layers_of("UNet", (1, 32, 32), 3).output_shape((1, 32, 32))
        (3, 32, 32)
        >>> layers_of("CharGRU", (50,), 65).output_shape((50,))
        (50, 65)
    """
    if name in CHARACTER_NETWORKS:
        if len(shape) != 1:
            raise ValueError(f"{name} takes sequences of indices (T,), got inputs of {shape}")
        return CHARACTER_NETWORKS[name](classes)
    return {**NETWORKS, **PLACE_NETWORKS}[name](image_of(name, shape), classes)


def usual_size(name: str) -> tuple[Shape, int]:
    """Return the shape of an input and the number of classes that a network has in its paper.

    Those of characters get Karpathy's (2015) pieces of 50 characters, 65 of them different, as in his Shakespeare.
    """
    if name in CHARACTER_NETWORKS:
        return (50,), 65
    given = inspect.signature({**NETWORKS, **PLACE_NETWORKS}[name]).parameters
    return given["shape"].default, given["classes"].default


__all__ = [
    "CHARACTER_NETWORKS",
    "NETWORKS",
    "PLACE_NETWORKS",
    "char_gru",
    "char_lstm",
    "char_rnn",
    "char_transformer",
    "layers_of",
    "lenet5",
    "mixer_b",
    "mixer_s",
    "mobilenet_v2",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet50",
    "resnet56",
    "unet",
    "usual_size",
    "vgg11",
    "vgg16",
    "vit_tiny",
    "wide_resnet16_4",
    "wide_resnet28_10",
]
