"""Transformer encoders: Vaswani et al., "Attention is all you need" (NeurIPS 2017), with the normalization first.

The vision transformer is that of Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021): an image is cut into
patches, a sequence of them. Its scores come from the mean of all positions, as in Beyer et al., "Better plain ViT
baselines for ImageNet-1k" (2022), not from a position of its own. ``char_transformer`` predicts the next character of a
text, as the networks of ``training.zoo.recurrent`` do.
"""

from __future__ import annotations

from backend.checks import LARGEST_SIZE, sizes, whole
from layers import (
    Affine,
    Convolution,
    Embedding,
    Gelu,
    GlobalAveragePooling,
    Layer,
    LayerNormalization,
    MultiHeadAttention,
    Permute,
    PositionalEmbedding,
    PositionalEncoding,
    PositionwiseAffine,
    Reshape,
    Residual,
    Sequential,
)
from layers.base import Shape
from training.zoo.blocks import Image


def vit_tiny(shape: Image = (3, 224, 224), classes: int = 1000) -> Sequential:
    """Return ViT-Tiny/16 (table 1 of Touvron et al., "Training data-efficient image transformers", 2021).

    It has 5,717,032 parameters: without a position for the class it has 384 fewer than timm's vit_tiny_patch16_224. Of
    images with fewer than 224 rows or columns the patches are 4×4, not 16×16.
    """
    return vision_transformer(12, 192, 3, 768, shape, classes)


def vision_transformer(depth: int, features: int, heads: int, hidden: int, shape: Image, classes: int) -> Sequential:
    """Return the network of ``depth`` blocks over patches, with ``hidden`` units in the layers of each position."""
    shape = sizes("shape", shape, 1, 3)  # type: ignore[assignment]
    size = 16 if min(shape[1:]) >= 224 else 4
    embedding = Convolution.of(shape[0], features, size, stride=size, init="xavier")
    _, rows, columns = embedding.output_shape(shape)
    patches = rows * columns
    return Sequential(
        embedding,
        Reshape((features, patches)),
        Permute((2, 1)),
        PositionalEmbedding.of(patches, features),
        *encoder(depth, features, heads, hidden),
        *mean_of_positions((patches, features)),
        Affine.of(features, classes, "xavier"),
    )


def char_transformer(
    characters: int, size: int = 128, hidden: int = 512, depth: int = 2, heads: int = 4, longest: int = 1024
) -> Sequential:
    """Return an embedding with sinusoidal positions, a causal encoder, and scores for each character.

    It takes indices of characters (N, T) and returns scores (N, T, characters), those of a position from the characters
    up to it.

    Args:
        characters: number of different characters.
        size: of the vector of a character and of each position.
        hidden: units of the network over each position.
        depth: number of blocks.
        heads: heads of attention of each block; they divide ``size``.
        longest: the largest T that it takes.

    Raises:
        TypeError: an argument is not a whole number.
        ValueError: one is not positive, or ``heads`` does not divide ``size``.

    Examples:
        >>> import numpy
        >>> from training.zoo.transformer import char_transformer
        >>> char_transformer(65).forward(numpy.zeros((2, 7), "int32")).shape
        (2, 7, 65)
    """
    return Sequential(
        Embedding.of(characters, size),
        PositionalEncoding(longest, size),
        *encoder(whole("depth", depth, 1, LARGEST_SIZE), size, heads, hidden, causal=True),
        PositionwiseAffine.of(size, characters, "xavier"),
    )


def encoder(depth: int, features: int, heads: int, hidden: int, causal: bool = False) -> list[Layer]:
    """Return the blocks of a transformer encoder over sequences (N, T, features), and its last normalization.

    A block adds attention of ``heads`` heads to its input, and then a network over each position with ``hidden`` units.

    Args:
        causal: let a position see no later one.

    Raises:
        TypeError: an argument is not a whole number, or ``causal`` neither True nor False.
        ValueError: one is out of range, or ``heads`` does not divide ``features``.

    Examples:
        >>> from backend import xp
        >>> from layers import Sequential
        >>> from training.zoo.transformer import encoder
        >>> Sequential(*encoder(depth=2, features=8, heads=2, hidden=16)).forward(xp.ones((3, 5, 8), "float32")).shape
        (3, 5, 8)
    """
    hidden = whole("hidden", hidden, 1, LARGEST_SIZE)
    layers: list[Layer] = []
    for _ in range(whole("depth", depth, 0, LARGEST_SIZE)):
        attention = MultiHeadAttention.of(features, heads, causal)
        wide, narrow = PositionwiseAffine.of(features, hidden), PositionwiseAffine.of(hidden, features, "xavier")
        layers.append(Residual(Sequential(LayerNormalization.of(features), attention)))
        layers.append(Residual(Sequential(LayerNormalization.of(features), wide, Gelu(), narrow)))
    return [*layers, LayerNormalization.of(features)]


def mean_of_positions(shape: Shape) -> list[Layer]:
    """Return layers that make of sequences (N, T, features) of a shape (T, features) their means (N, features)."""
    length, features = shape
    return [Permute((2, 1)), Reshape((features, length, 1)), GlobalAveragePooling()]
