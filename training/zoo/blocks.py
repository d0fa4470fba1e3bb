"""The pieces that several networks are made of."""

from __future__ import annotations

from layers import BatchNormalization, Convolution, Layer, Relu
from layers.base import Shape

Image = tuple[int, int, int]
"""The shape of an image, (C, H, W)."""


def image_of(name: str, shape: Shape) -> Image:
    """Return the shape of an input as that of an image, or raise a ValueError that names the network."""
    if len(shape) != 3:
        rows = "; rows are for MultiLayerNet" if len(shape) == 1 else ""
        raise ValueError(f"{name} takes images (C, H, W), got inputs of {shape}{rows}")
    return shape[0], shape[1], shape[2]


def conv_norm(
    channels: int, filters: int, size: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> list[Layer]:
    """Return a convolution, padded to keep the size of the image at stride 1, and its batch normalization."""
    convolution = Convolution.of(channels, filters, size, stride=stride, pad=(size - 1) // 2, groups=groups, bias=bias)
    return [convolution, BatchNormalization.of(filters)]


def conv_norm_relu(channels: int, filters: int, size: int, stride: int = 1, bias: bool = False) -> list[Layer]:
    """Return a convolution, its batch normalization and a ReLU."""
    return [*conv_norm(channels, filters, size, stride, bias=bias), Relu()]
