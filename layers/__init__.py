"""The layers of a network, on NumPy or CuPy alike."""

from layers import _neighbours  # noqa: F401  (first: it says which file is in the way, if one is)
from layers.activations import Gelu, LeakyRelu, Relu, Relu6, Sigmoid, Tanh
from layers.affine import Affine
from layers.arithmetic import AddLayer, MulLayer
from layers.attention import MultiHeadAttention, PositionwiseAffine
from layers.base import Layer
from layers.compat.book.functions import col2im, im2col, relu, sigmoid, softmax
from layers.convolution import Convolution, ConvolutionTranspose
from layers.dropout import Dropout
from layers.embedding import Embedding
from layers.hinge_loss import HingeLoss
from layers.loss import Loss, Softmax, SoftmaxWithLoss, cross_entropy_error
from layers.normalization import BatchNormalization, LayerNormalization
from layers.numerical import numerical_gradient
from layers.parameters import parameter
from layers.pooling import AveragePooling, GlobalAveragePooling, Pooling
from layers.positional import PositionalEmbedding, PositionalEncoding
from layers.recurrent import GRU, LSTM, RNN
from layers.regression_loss import HuberLoss, MeanSquaredError
from layers.residual import Residual
from layers.sequential import Sequential
from layers.shape import Flatten, Permute, Reshape
from layers.sigmoid_loss import SigmoidWithLoss
from layers.skip import Skip

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AddLayer",
    "Affine",
    "AveragePooling",
    "BatchNormalization",
    "Convolution",
    "ConvolutionTranspose",
    "Dropout",
    "Embedding",
    "Flatten",
    "Gelu",
    "GlobalAveragePooling",
    "HingeLoss",
    "HuberLoss",
    "Layer",
    "LayerNormalization",
    "LeakyRelu",
    "Loss",
    "MeanSquaredError",
    "MulLayer",
    "MultiHeadAttention",
    "Permute",
    "Pooling",
    "PositionalEmbedding",
    "PositionalEncoding",
    "PositionwiseAffine",
    "Relu",
    "Relu6",
    "Reshape",
    "Residual",
    "Sequential",
    "Sigmoid",
    "SigmoidWithLoss",
    "Skip",
    "Softmax",
    "SoftmaxWithLoss",
    "Tanh",
    "col2im",
    "cross_entropy_error",
    "im2col",
    "numerical_gradient",
    "parameter",
    "relu",
    "sigmoid",
    "softmax",
]
