"""Networks with every layer, and with the geometries for which a layer has different code on a GPU."""

import functools
import math
from collections.abc import Callable

from layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    Embedding,
    Flatten,
    Gelu,
    GlobalAveragePooling,
    LayerNormalization,
    LeakyRelu,
    Permute,
    Pooling,
    PositionalEmbedding,
    PositionwiseAffine,
    Relu,
    Relu6,
    Reshape,
    Residual,
    Sequential,
    Sigmoid,
    Skip,
    Softmax,
    Tanh,
)
from training.models import ConvNet, DeepConvNet, MultiLayerNet, Network, SimpleConvNet, TwoLayerNet
from training.zoo.transformer import encoder

conv, norm = Convolution.of, BatchNormalization.of


def classifier(input_dim, *layers):
    """Return a network of layers, with ten classes."""
    features = math.prod(Sequential(*layers).output_shape(input_dim))
    return Network(Sequential(*layers, Affine.of(features, 10)), input_dim)


MODELS = {
    "TwoLayerNet": lambda: TwoLayerNet(784, 50, 10),
    "MultiLayerNet": lambda: MultiLayerNet(20, [60, 50], 10, activation="tanh", weight_init_std="xavier"),
    "SimpleConvNet": SimpleConvNet,
    "DeepConvNet": DeepConvNet,
    "ConvNet": ConvNet,
}


def _of_images(layer):
    return classifier((3, 6, 6), layer(), Relu(), Dropout())


def keras_example():
    """Return the network whose weights tests/training/interop/keras has as Keras wrote them."""
    return Network(
        Sequential(
            conv(2, 4, 3, stride=2, pad="same"),
            norm(4),
            Relu(),
            conv(4, 8, 3, pad="same", groups=4),
            LayerNormalization.of(8),
            conv(8, 3, 1, bias=False),
            Flatten(),
            norm(3 * 4 * 3),
            Affine.of(3 * 4 * 3, 6),
            Relu(),
            Affine.of(6, 3),
        ),
        (2, 7, 5),
    )


def keras_recurrent():
    """Return a network of characters with every recurrent layer, as ``keras_example``."""
    return Network(
        Sequential(Embedding.of(9, 6), RNN.of(6, 5), LSTM.of(5, 4), GRU.of(4, 3), Flatten(), Affine.of(7 * 3, 4)), (7,)
    )


def keras_attention():
    """Return a causal transformer of characters with learned positions, as ``keras_example``."""
    layers = [Embedding.of(11, 8), PositionalEmbedding.of(6, 8), *encoder(2, 8, 2, 12, causal=True)]
    return Network(Sequential(*layers, PositionwiseAffine.of(8, 11)), (6,))


KERAS_EXAMPLES = {"small": keras_example, "recurrent": keras_recurrent, "attention": keras_attention}
"""The networks whose weights and outputs tests/training/interop/keras has as Keras wrote them, by the files' names."""


NETWORKS: dict[str, Callable[[], Network]] = {
    **MODELS,
    "color images": lambda: SimpleConvNet(input_dim=(3, 12, 12)),
    "images to affine": lambda: classifier((3, 6, 6)),
    "images to a wide affine": lambda: classifier((3, 6, 6), Affine.of(108, 100), Relu()),
    "convolution to a wide affine": lambda: classifier((3, 6, 6), conv(3, 4, 3), Affine.of(64, 100), Relu()),
    "one channel to affine": lambda: classifier((1, 6, 6), Affine.of(36, 100)),
    "one pixel to affine": lambda: classifier((3, 3, 3), conv(3, 6, 3), Affine.of(6, 200)),
    "strides": lambda: classifier((3, 9, 9), conv(3, 4, 3), Relu(), conv(4, 6, 3, stride=2, pad=1), Relu()),
    "1x1": lambda: classifier((3, 9, 9), conv(3, 4, 1), Relu(), conv(4, 6, 1), Relu(), conv(6, 5, 1, stride=2)),
    "groups": lambda: classifier(
        (4, 9, 9),
        conv(4, 8, 3, groups=2),
        Relu(),
        conv(8, 6, 3, groups=2, pad=1),
        Relu(),
        conv(6, 6, 1, groups=2),
        conv(6, 6, 3, groups=2, stride=2),
        conv(6, 6, 1, groups=3, stride=2),
    ),
    "depthwise": lambda: classifier(
        (3, 8, 8), conv(3, 4, 3), conv(4, 8, 3, groups=4), Relu(), conv(8, 8, 3, groups=8, stride=2, pad=1)
    ),
    "depthwise first": lambda: classifier(
        (2, 7, 7), conv(2, 2, 3, groups=2, pad=1), Relu(), conv(2, 6, 3, groups=2, dilation=2), Relu()
    ),
    "winograd": lambda: classifier(
        (3, 8, 8), conv(3, 4, 3, pad=1, winograd=True), Relu(), conv(4, 8, 3, winograd=True), Relu()
    ),
    "winograd that fits": lambda: classifier(
        (2, 18, 18), conv(2, 4, 3, winograd=True), conv(4, 4, 3, pad=1, winograd=True)
    ),
    "transposed": lambda: classifier((3, 8, 8), conv(3, 4, 3), ConvolutionTranspose.of(4, 3, 3, stride=2), Relu()),
    "dilated": lambda: classifier(
        (3, 12, 12), conv(3, 4, 3, dilation=2), conv(4, 4, 3, dilation=2, pad=1), conv(4, 4, 3, pad=4)
    ),
    "same": lambda: classifier(
        (2, 11, 11), conv(2, 4, 3, stride=2, pad="same"), conv(4, 4, (1, 3), pad="same"), conv(4, 6, 6)
    ),
    "activations": lambda: classifier(
        (3, 9, 9),
        conv(3, 4, 3),
        LeakyRelu(),
        Sigmoid(),
        Tanh(),
        Gelu(),
        Softmax(),
        Dropout(0.3),
        Flatten(),
        LeakyRelu(),
        Gelu(),
        Softmax(),
        Flatten(),
    ),
    **{
        f"{type(layer()).__name__} of images": functools.partial(_of_images, layer)
        for layer in (
            Relu,
            Relu6,
            LeakyRelu,
            Sigmoid,
            Tanh,
            Gelu,
            Softmax,
            Dropout,
            Flatten,
            GlobalAveragePooling,
            lambda: Reshape((3, 36, 1)),
            lambda: Permute((2, 1, 3)),
            lambda: AveragePooling(2, 2),
            lambda: LayerNormalization.of((3, 6, 6)),
        )
    },
    "a statistic for each pixel": lambda: classifier((3, 6, 6), norm(108), Relu()),
    "poolings": lambda: classifier(
        (3, 20, 20),
        Pooling(2, 2, stride=2),
        conv(3, 4, 3),
        Pooling(3, 3, stride=2, pad=1),
        AveragePooling(2, 2),
        GlobalAveragePooling(),
    ),
    "normalizations": lambda: classifier(
        (3, 6, 6),
        norm(3),
        Relu(),
        LayerNormalization.of(3),
        LayerNormalization.of((3, 6, 6)),
        norm(108),
        Flatten(),
        norm(108),
        Relu(),
        LayerNormalization.of(108),
    ),
    "residual": lambda: classifier(
        (3, 8, 8),
        conv(3, 4, 3, pad=1),
        Relu(),
        Residual(Sequential(conv(4, 4, 3, pad=1), norm(4), Relu(), conv(4, 4, 3, pad=1))),
        Relu(),
        Residual(Sequential(conv(4, 6, 3, stride=2, pad=1), norm(6), Relu()), conv(4, 6, 1, stride=2)),
        Relu(),
    ),
    "skip": lambda: classifier(
        (3, 8, 6),
        conv(3, 4, 3, pad=1),
        Skip(
            Sequential(
                Pooling(2, 2, stride=2), conv(4, 6, 3, pad=1), Relu(), ConvolutionTranspose.of(6, 5, 2, stride=2)
            )
        ),
        conv(9, 2, 1),
        Flatten(),
        Skip(Affine.of(96, 4)),
    ),
    "residual of images": lambda: classifier((3, 8, 8), Residual(conv(3, 3, 3, pad=1))),
}
"""Functions that make a network, by a name that tells its layers."""
