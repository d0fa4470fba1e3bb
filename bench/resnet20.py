"""Build ResNet-20 for CIFAR-10: He et al., "Deep residual learning for image recognition" (CVPR 2016), section 4.2."""

from __future__ import annotations

from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    GlobalAveragePooling,
    Layer,
    Relu,
    Residual,
    Sequential,
)
from training.models import Network

_STAGES = ((16, 1), (32, 2), (64, 2))
_BLOCKS = 3  # in a stage


def resnet20() -> Network:
    """Return the network for images (3, 32, 32) of ten classes: three stages of three blocks of two convolutions.

    Where a block changes the shape, its shortcut is a 1×1 convolution (the paper's option B).
    """
    layers: list[Layer] = [Convolution.of(3, 16, 3, pad=1), BatchNormalization.of(16), Relu()]
    channels = 16
    for filters, stride in _STAGES:
        for number in range(_BLOCKS):
            layers += [_block(channels, filters, 1 if number else stride), Relu()]
            channels = filters
    return Network(Sequential(*layers, GlobalAveragePooling(), Affine.of(channels, 10)), (3, 32, 32))


def _block(channels: int, filters: int, stride: int) -> Residual:
    body = Sequential(
        Convolution.of(channels, filters, 3, stride=stride, pad=1),
        BatchNormalization.of(filters),
        Relu(),
        Convolution.of(filters, filters, 3, pad=1),
        BatchNormalization.of(filters),
    )
    if stride == 1 and channels == filters:
        return Residual(body)
    shortcut = Convolution.of(channels, filters, 1, stride=stride)
    return Residual(body, Sequential(shortcut, BatchNormalization.of(filters)))
