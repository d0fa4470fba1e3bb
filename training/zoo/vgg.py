"""VGG: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (ICLR 2015).

With batch normalization, which is younger than the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from layers import Affine, Dropout, Layer, Pooling, Relu, Sequential
from training.zoo.blocks import Image, conv_norm_relu


def vgg11(shape: Image = (3, 224, 224), classes: int = 1000) -> Sequential:
    """Return VGG-11 (configuration A of table 1) with batch normalization: 132,868,840 parameters.

    Of images with fewer than 224 rows or columns the two hidden layers have 512 units instead of 4096.
    """
    return _vgg(((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)), shape, classes)


def vgg16(shape: Image = (3, 224, 224), classes: int = 1000) -> Sequential:
    """Return VGG-16 (configuration D of table 1) with batch normalization: 138,365,992 parameters.

    Of images with fewer than 224 rows or columns the two hidden layers have 512 units instead of 4096.
    """
    return _vgg(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), shape, classes)


def _vgg(stages: Sequence[tuple[int, int]], shape: Image, classes: int) -> Sequential:
    """Return the network of these stages: the filters of each, and its number of convolutions."""
    layers: list[Layer] = []
    channels = shape[0]
    for filters, convolutions in stages:
        for _ in range(convolutions):
            layers += conv_norm_relu(channels, filters, 3, bias=True)
            channels = filters
        layers.append(Pooling(2, 2, stride=2, rounding="ceil"))  # of 28x28, too, a pixel is left in the end
    units = math.prod(Sequential(*layers).output_shape(shape))
    hidden = 4096 if min(shape[1:]) >= 224 else 512
    layers += [Affine.of(units, hidden), Relu(), Dropout(inverted=True)]
    layers += [Affine.of(hidden, hidden), Relu(), Dropout(inverted=True)]
    return Sequential(*layers, Affine.of(hidden, classes))
