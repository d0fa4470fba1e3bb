"""Well-known networks of images, each a plain function that returns its layers.

``NETWORKS`` has them by the names that ``training.models.build_for`` and ``--model`` take. All take the shape of an
image (C, H, W) and the number of classes; the defaults are those of the paper.

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
from training.zoo.blocks import Image
from training.zoo.lenet import lenet5
from training.zoo.mixer import mixer_b, mixer_s
from training.zoo.mobilenet import mobilenet_v2
from training.zoo.resnet import resnet18, resnet20, resnet32, resnet50, resnet56
from training.zoo.transformer import vit_tiny
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


def usual_size(name: str) -> tuple[Image, int]:
    """Return the shape of an image and the number of classes that a network of ``NETWORKS`` has in its paper."""
    given = inspect.signature(NETWORKS[name]).parameters
    return given["shape"].default, given["classes"].default


__all__ = [
    "NETWORKS",
    "lenet5",
    "mixer_b",
    "mixer_s",
    "mobilenet_v2",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet50",
    "resnet56",
    "usual_size",
    "vgg11",
    "vgg16",
    "vit_tiny",
    "wide_resnet16_4",
    "wide_resnet28_10",
]
