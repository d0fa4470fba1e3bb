"""Networks: the book's and one of today's, any other over a Sequential, and their files."""

from training.models.named import (
    MODELS,
    ConvNet,
    DeepConvNet,
    MultiLayerNet,
    SimpleConvNet,
    TwoLayerNet,
    build,
    build_for,
)
from training.models.network import Network
from training.models.parameters import ParameterDict

__all__ = [
    "MODELS",
    "ConvNet",
    "DeepConvNet",
    "MultiLayerNet",
    "Network",
    "ParameterDict",
    "SimpleConvNet",
    "TwoLayerNet",
    "build",
    "build_for",
]
