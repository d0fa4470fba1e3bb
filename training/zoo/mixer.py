"""MLP-Mixer: Tolstikhin et al., "MLP-Mixer: an all-MLP architecture for vision" (NeurIPS 2021).

An image is cut into patches, each a row of channels. Fully connected layers mix the patches of one channel, and then
the channels of one patch; as 1×1 convolutions over images (channels, patches, 1), which they are.
"""

from __future__ import annotations

from layers import (
    Affine,
    Convolution,
    Gelu,
    GlobalAveragePooling,
    Layer,
    LayerNormalization,
    Permute,
    Reshape,
    Residual,
    Sequential,
)
from training.zoo.blocks import Image


def mixer_s(shape: Image = (3, 224, 224), classes: int = 1000) -> Sequential:
    """Return Mixer-S/16 (table 1 of the paper): 18,528,264 parameters.

    Of images with fewer than 224 rows or columns the patches are 4×4, not 16×16.
    """
    return mixer(8, 512, 256, 2048, shape, classes)


def mixer_b(shape: Image = (3, 224, 224), classes: int = 1000) -> Sequential:
    """Return Mixer-B/16 (table 1 of the paper): 59,880,472 parameters.

    Of images with fewer than 224 rows or columns the patches are 4×4, not 16×16.
    """
    return mixer(12, 768, 384, 3072, shape, classes)


def mixer(depth: int, channels: int, over_patches: int, over_channels: int, shape: Image, classes: int) -> Sequential:
    """Return the network of ``depth`` blocks, and these numbers of units in the hidden layers over each axis."""
    size = 16 if min(shape[1:]) >= 224 else 4
    embedding = Convolution.of(shape[0], channels, size, stride=size)
    _, rows, columns = embedding.output_shape(shape)
    patches = rows * columns
    layers: list[Layer] = [embedding, Reshape((channels, patches, 1))]
    for _ in range(depth):
        mix_patches = [Permute((2, 1, 3)), *_mlp(patches, over_patches), Permute((2, 1, 3))]
        layers.append(Residual(Sequential(LayerNormalization.of(channels), *mix_patches)))
        layers.append(Residual(Sequential(LayerNormalization.of(channels), *_mlp(channels, over_channels))))
    layers += [LayerNormalization.of(channels), GlobalAveragePooling()]
    return Sequential(*layers, Affine.of(channels, classes))


def _mlp(inputs: int, hidden: int) -> list[Layer]:
    return [Convolution.of(inputs, hidden, 1), Gelu(), Convolution.of(hidden, inputs, 1, init="xavier")]
