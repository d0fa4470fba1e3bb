"""The cost model knows every layer of the library, and its figures are counts."""

from dataclasses import astuple

import numpy as np
import pytest

import layers
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
    HingeLoss,
    HuberLoss,
    LayerNormalization,
    LeakyRelu,
    MeanSquaredError,
    MultiHeadAttention,
    Permute,
    Pooling,
    PositionalEmbedding,
    PositionalEncoding,
    PositionwiseAffine,
    Relu,
    Relu6,
    Reshape,
    Residual,
    Sigmoid,
    SigmoidWithLoss,
    Skip,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
)
from training.profile.cost import Batch, cost_of

IN_NO_CHAIN = {"Layer", "Loss", "Sequential", "AddLayer", "MulLayer"}
"""Bases, the chain itself, whose layers are counted one by one, and layers of two inputs, which no network has."""

EXAMPLES = {
    GRU: (lambda: GRU.of(4, 6), (5, 4)),
    LSTM: (lambda: LSTM.of(4, 6), (5, 4)),
    RNN: (lambda: RNN.of(4, 6), (5, 4)),
    Affine: (lambda: Affine.of(6, 3), (6,)),
    AveragePooling: (lambda: AveragePooling(2, 2), (3, 6, 6)),
    BatchNormalization: (lambda: BatchNormalization.of(3), (3, 6, 6)),
    Convolution: (lambda: Convolution.of(3, 4, 3), (3, 6, 6)),
    ConvolutionTranspose: (lambda: ConvolutionTranspose.of(3, 4, 2, stride=2), (3, 6, 6)),
    Embedding: (lambda: Embedding.of(10, 4), (5,)),
    LayerNormalization: (lambda: LayerNormalization.of(4), (5, 4)),
    MultiHeadAttention: (lambda: MultiHeadAttention.of(4, 2), (5, 4)),
    Permute: (lambda: Permute((2, 1)), (5, 4)),
    Pooling: (lambda: Pooling(2, 2), (3, 6, 6)),
    PositionalEmbedding: (lambda: PositionalEmbedding.of(5, 4), (5, 4)),
    PositionalEncoding: (lambda: PositionalEncoding(5, 4), (5, 4)),
    PositionwiseAffine: (lambda: PositionwiseAffine.of(4, 6), (5, 4)),
    Reshape: (lambda: Reshape((4, 5)), (5, 4)),
    Residual: (lambda: Residual(Affine.of(6, 6)), (6,)),
    Skip: (lambda: Skip(Affine.of(6, 3)), (6,)),
    **{
        kind: (kind, (3, 6, 6))
        for kind in (Dropout, Flatten, Gelu, GlobalAveragePooling, LeakyRelu, Relu, Relu6, Sigmoid, Softmax, Tanh)
    },
    **{kind: (kind, (6,)) for kind in (HingeLoss, HuberLoss, MeanSquaredError, SigmoidWithLoss, SoftmaxWithLoss)},
}
"""What makes a layer, and the shape of a sample that it takes."""


def test_every_layer_of_the_library_has_an_example():
    kinds = {getattr(layers, name) for name in layers.__all__ if name not in IN_NO_CHAIN}
    assert {kind for kind in kinds if isinstance(kind, type) and issubclass(kind, layers.Layer)} == set(EXAMPLES)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_every_layer_of_the_library_is_known(kind, dtype):
    make, shape = EXAMPLES[kind]
    cost = cost_of(make().astype(dtype), Batch(3, shape, np.dtype(dtype)))
    assert cost is not None
    figures = (*astuple(cost.forward), *astuple(cost.backward), cost.kept)
    assert all(type(figure) is int and figure >= 0 for figure in figures), cost
    assert cost.forward.nbytes > 0
