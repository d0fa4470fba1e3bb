"""Residual networks: He et al., "Deep residual learning for image recognition" (CVPR 2016).

A block adds what its body computes to its input, and a ReLU follows. Where the body changes the shape, the input goes
through a 1×1 convolution and its normalization (the paper's option B). The paper's networks for small images take every
other pixel of the input there instead, and fill further channels with zeros (option A).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layers import Affine, GlobalAveragePooling, Layer, Pooling, Relu, Residual, Sequential
from training.zoo.blocks import Image, conv_norm, conv_norm_relu

Block = Callable[[int, int, int], Residual]
"""A function that makes a block from its numbers of channels and filters, and its stride."""


def resnet20(shape: Image = (3, 32, 32), classes: int = 10) -> Sequential:
    """Return ResNet-20 for small images (section 4.2 of the paper): 0.27 million parameters.

    Its convolutions have biases, which the paper does not mention, and its shortcuts are option B, not the paper's A.
    So it is with ``resnet32`` and ``resnet56``.
    """
    return _small(3, shape, classes)


def resnet32(shape: Image = (3, 32, 32), classes: int = 10) -> Sequential:
    """Return ResNet-32 for small images (section 4.2 of the paper): 0.46 million parameters."""
    return _small(5, shape, classes)


def resnet56(shape: Image = (3, 32, 32), classes: int = 10) -> Sequential:
    """Return ResNet-56 for small images (section 4.2 of the paper): 0.85 million parameters."""
    return _small(9, shape, classes)


def _small(blocks: int, shape: Image, classes: int) -> Sequential:
    stem = conv_norm_relu(shape[0], 16, 3, bias=True)
    stages = _stages(_biased_block, 16, ((16, blocks, 1), (32, blocks, 2), (64, blocks, 2)))
    return Sequential(*stem, *stages, GlobalAveragePooling(), Affine.of(64, classes))


def resnet18(shape: Image = (3, 224, 224), classes: int = 1000) -> Sequential:
    """Return ResNet-18 for large images (table 1 of the paper): 11,689,512 parameters."""
    stages = _stages(_basic_block, 64, ((64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2)))
    return Sequential(*_large_stem(shape), *stages, GlobalAveragePooling(), Affine.of(512, classes))


def resnet50(shape: Image = (3, 224, 224), classes: int = 1000) -> Sequential:
    """Return ResNet-50 for large images (table 1 of the paper): 25,557,032 parameters.

    The 3×3 convolution of a block has its stride, not the first 1×1 one, as in torchvision ("ResNet v1.5").
    """
    stages = _stages(_bottleneck, 64, ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2)))
    return Sequential(*_large_stem(shape), *stages, GlobalAveragePooling(), Affine.of(2048, classes))


def _large_stem(shape: Image) -> list[Layer]:
    return [*conv_norm_relu(shape[0], 64, 7, stride=2), Pooling(3, 3, stride=2, pad=1)]


def _stages(block: Block, channels: int, stages: Sequence[tuple[int, int, int]]) -> list[Layer]:
    """Return the blocks of all stages, each given by its filters, its number of blocks and the stride of the first."""
    layers: list[Layer] = []
    for filters, blocks, stride in stages:
        for number in range(blocks):
            layers += [block(channels, filters, 1 if number else stride), Relu()]
            channels = filters
    return layers


def _basic_block(channels: int, filters: int, stride: int, bias: bool = False) -> Residual:
    """Return two 3×3 convolutions with a shortcut."""
    body = conv_norm_relu(channels, filters, 3, stride, bias) + conv_norm(filters, filters, 3, bias=bias)
    return _residual(body, channels, filters, stride, bias)


def _biased_block(channels: int, filters: int, stride: int) -> Residual:
    return _basic_block(channels, filters, stride, bias=True)


def _bottleneck(channels: int, filters: int, stride: int) -> Residual:
    """Return a 1×1, a 3×3 and a 1×1 convolution with a shortcut; the first two have a quarter of the filters."""
    few = filters // 4
    body = conv_norm_relu(channels, few, 1) + conv_norm_relu(few, few, 3, stride) + conv_norm(few, filters, 1)
    return _residual(body, channels, filters, stride)


def _residual(body: list[Layer], channels: int, filters: int, stride: int, bias: bool = False) -> Residual:
    if stride == 1 and channels == filters:
        return Residual(Sequential(*body))
    return Residual(Sequential(*body), Sequential(*conv_norm(channels, filters, 1, stride, bias=bias)))
