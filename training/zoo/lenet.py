"""LeNet-5: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998)."""

from __future__ import annotations

import math

from layers import Affine, AveragePooling, Convolution, Layer, Sequential, Tanh
from training.zoo.blocks import Image


def lenet5(shape: Image = (1, 28, 28), classes: int = 10) -> Sequential:
    """Return LeNet-5 as it is usually written today: 61,706 parameters.

    The paper's has 60,000: a filter of its second convolution sees only some channels, its averages have weights, and
    its last layer measures distances to drawn digits. Its images are 32×32; here 28×28 are padded to that.
    """
    features: list[Layer] = [
        Convolution.of(shape[0], 6, 5, pad=2, init="xavier"),
        Tanh(),
        AveragePooling(2, 2, stride=2),
        Convolution.of(6, 16, 5, init="xavier"),
        Tanh(),
        AveragePooling(2, 2, stride=2),
    ]
    units = math.prod(Sequential(*features).output_shape(shape))
    return Sequential(
        *features,
        Affine.of(units, 120, "xavier"),
        Tanh(),
        Affine.of(120, 84, "xavier"),
        Tanh(),
        Affine.of(84, classes, "xavier"),
    )
