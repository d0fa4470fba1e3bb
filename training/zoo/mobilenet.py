"""MobileNetV2: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks" (CVPR 2018)."""

from __future__ import annotations

from layers import Affine, Dropout, GlobalAveragePooling, Layer, Relu6, Residual, Sequential
from training.zoo.blocks import Image, conv_norm

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Table 2 of the paper: expansion, filters, number of blocks, and stride of the first block of each stage."""


def mobilenet_v2(shape: Image = (3, 224, 224), classes: int = 1000) -> Sequential:
    """Return MobileNetV2 (table 2 of the paper): 3,504,872 parameters.

    Dropout of 0.2 before the last layer is that of torchvision and of the authors' code.
    """
    layers = [*conv_norm(shape[0], 32, 3, stride=2), Relu6()]
    channels = 32
    for expansion, filters, blocks, stride in STAGES:
        for number in range(blocks):
            layers += _block(channels, filters, expansion, 1 if number else stride)
            channels = filters
    layers += [*conv_norm(channels, 1280, 1), Relu6(), GlobalAveragePooling(), Dropout(0.2, inverted=True)]
    return Sequential(*layers, Affine.of(1280, classes))


def _block(channels: int, filters: int, expansion: int, stride: int) -> list[Layer]:
    """Return a bottleneck: more channels, a depthwise convolution, and few channels again, without an activation."""
    wide = channels * expansion
    expand = [*conv_norm(channels, wide, 1), Relu6()] if expansion > 1 else []
    depthwise = [*conv_norm(wide, wide, 3, stride, groups=wide), Relu6()]
    body = [*expand, *depthwise, *conv_norm(wide, filters, 1)]
    return [Residual(Sequential(*body))] if stride == 1 and channels == filters else body
