"""Wide residual networks: Zagoruyko and Komodakis, "Wide residual networks" (BMVC 2016).

Normalization and ReLU come before each convolution. Where a block changes the shape, they come before its shortcut,
too, a 1×1 convolution.
"""

from __future__ import annotations

from layers import Affine, BatchNormalization, Convolution, GlobalAveragePooling, Layer, Relu, Residual, Sequential
from training.zoo.blocks import Image, conv_norm_relu


def wide_resnet16_4(shape: Image = (3, 32, 32), classes: int = 10) -> Sequential:
    """Return WRN-16-4, of depth 16 and four times the width of a ResNet: 2.7 million parameters."""
    return _wide(16, 4, shape, classes)


def wide_resnet28_10(shape: Image = (3, 32, 32), classes: int = 10) -> Sequential:
    """Return WRN-28-10, of depth 28 and ten times the width of a ResNet: 36.5 million parameters."""
    return _wide(28, 10, shape, classes)


def _wide(depth: int, width: int, shape: Image, classes: int) -> Sequential:
    layers: list[Layer] = [_conv3(shape[0], 16)]
    channels = 16
    for filters, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        for number in range((depth - 4) // 6):
            layers += _block(channels, filters, 1 if number else stride)
            channels = filters
    layers += [BatchNormalization.of(channels), Relu(), GlobalAveragePooling(), Affine.of(channels, classes)]
    return Sequential(*layers)


def _block(channels: int, filters: int, stride: int) -> list[Layer]:
    before: list[Layer] = [BatchNormalization.of(channels), Relu()]
    body = [*conv_norm_relu(channels, filters, 3, stride), _conv3(filters, filters)]
    if stride == 1 and channels == filters:
        return [Residual(Sequential(*before, *body))]
    return [*before, Residual(Sequential(*body), Convolution.of(channels, filters, 1, stride=stride, bias=False))]


def _conv3(channels: int, filters: int) -> Convolution:
    return Convolution.of(channels, filters, 3, pad=1, bias=False)
