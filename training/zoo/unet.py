"""U-Net: Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation" (2015)."""

from __future__ import annotations

from backend.checks import LARGEST_SIZE, sizes, whole
from layers import Convolution, ConvolutionTranspose, Layer, Pooling, Sequential, Skip
from training.zoo.blocks import Image, conv_norm_relu

_DEEPEST = 16
"""The most levels below the first: of 2 to the power of it times the filters."""


def unet(shape: Image = (1, 512, 512), classes: int = 2, filters: int = 64, depth: int = 4) -> Sequential:
    """Return a U-Net, which makes a score of each class for each pixel: (C, H, W) → (classes, H, W).

    Its convolutions keep the size of the image, and have a batch normalization in the place of a bias; those of the
    paper do not, and its output is smaller than the image. Its scores are for ``layers.SoftmaxWithLoss``, with labels
    (N, H, W); a ``training.Trainer`` trains a ``training.models.Network`` of it.

    Args:
        filters: those of the first level; each level below has twice as many.
        depth: how often the image is halved: H and W are multiples of 2 to the power of it.

    Raises:
        TypeError: an argument is not a whole number, or ``shape`` not three of them.
        ValueError: one is out of range, or H or W is no such multiple.

    Examples:
        >>> from training.zoo.unet import unet
        >>> unet((3, 32, 48), classes=5, filters=4, depth=2).output_shape((3, 32, 48))
        (5, 32, 48)
    """
    channels, *size = sizes("shape", shape, 1, 3)
    classes, filters = (whole(name, n, 1, LARGEST_SIZE) for name, n in (("classes", classes), ("filters", filters)))
    depth = whole("depth", depth, 0, _DEEPEST)
    if any(length % (1 << depth) for length in size):
        raise ValueError(
            f"a U-Net of depth {depth} takes images whose sides are multiples of {1 << depth}, got {shape}"
        )
    head = Convolution.of(filters, classes, 1, init="xavier")
    return Sequential(*_pair(channels, filters), *_below(filters, depth), head)


def _pair(channels: int, filters: int) -> list[Layer]:
    return [*conv_norm_relu(channels, filters, 3), *conv_norm_relu(filters, filters, 3)]


def _below(filters: int, depth: int) -> list[Layer]:
    """Return the levels below one with that many channels, and the way back to it."""
    if not depth:
        return []
    up = ConvolutionTranspose.of(2 * filters, filters, 2, stride=2)
    body = [Pooling(2, 2, stride=2), *_pair(filters, 2 * filters), *_below(2 * filters, depth - 1), up]
    return [Skip(Sequential(*body)), *_pair(2 * filters, filters)]
