"""Networks by name: the book's, with its constructors, a more recent one, and those of ``training.zoo``.

Any other is a ``training.Network`` over a ``layers.Sequential``. All take ``dtype``, and ``loss`` as ``Network`` does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.checks import choice, instance, sizes
from layers import Affine, BatchNormalization, Convolution, Dropout, Loss, Pooling, Relu, Sequential, Sigmoid, Tanh
from layers.initializers import Init
from training.files import clipped
from training.models.arguments import ACTIVATIONS, ConvParam, remembered, size
from training.models.config import checked_arguments
from training.models.layer_file import SUFFIX, build_from_file
from training.models.network import Network
from training.zoo import NETWORKS, PLACE_NETWORKS, layers_of
from training.zoo.blocks import image_of


class TwoLayerNet(Network):
    """affine – relu – affine.

    Args:
        input_size, hidden_size, output_size: numbers of units.
        weight_init_std: standard deviation of the first weights, or "he" / "xavier".

    Examples:
        >>> from backend import xp
        >>> from training import TwoLayerNet
        >>> network = TwoLayerNet(input_size=784, hidden_size=50, output_size=10)
        >>> network.predict(xp.zeros((3, 784), "float32")).shape, list(network.params)
        ((3, 10), ['W1', 'b1', 'W2', 'b2'])
    """

    @remembered
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: Init = 0.01,
        dtype: Any = "float32",
        loss: str | Loss | None = None,
    ) -> None:
        layers = Sequential(
            Affine.of(input_size, hidden_size, weight_init_std, dtype),
            Relu(),
            Affine.of(hidden_size, output_size, weight_init_std, dtype),
        )
        super().__init__(layers, (input_size,), loss=loss)


class MultiLayerNet(Network):
    """affine – activation – … – affine, of any depth.

    Args:
        input_size, output_size: numbers of units.
        hidden_size_list: units of each hidden layer.
        activation: "relu", "sigmoid" or "tanh".
        weight_init_std: standard deviation of the first weights, or "he" ("relu") / "xavier" ("sigmoid").

    Examples:
        >>> from training import MultiLayerNet
        >>> [layer.describe() for layer in MultiLayerNet(784, [50, 20], 10).layers.layers.values()]
        ['784 → 50', '', '50 → 20', '', '20 → 10']
    """

    @remembered
    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: Init = "he",
        dtype: Any = "float32",
        loss: str | Loss | None = None,
    ) -> None:
        kind = dict(zip(ACTIVATIONS, (Relu, Sigmoid, Tanh), strict=True))[activation]
        units = [input_size, *hidden_size_list]
        layers: list[Any] = []
        for inputs, outputs in itertools.pairwise(units):
            layers += [Affine.of(inputs, outputs, weight_init_std, dtype), kind()]
        layers.append(Affine.of(units[-1], output_size, weight_init_std, dtype))
        super().__init__(Sequential(*layers), (input_size,), loss=loss)


class SimpleConvNet(Network):
    """conv – relu – pool 2×2 – affine – relu – affine.

    Args:
        input_dim: (C, H, W).
        conv_param: filter_num, filter_size, pad, stride.
        hidden_size, output_size: numbers of units.
        weight_init_std: standard deviation of the first weights, or "he" / "xavier".

    Examples:
        >>> from backend import xp
        >>> from training import SimpleConvNet
        >>> network = SimpleConvNet((1, 28, 28), {"filter_num": 8, "filter_size": 5, "pad": 0, "stride": 1})
        >>> network.predict(xp.zeros((2, 1, 28, 28), "float32")).shape, network.params["W1"].shape
        ((2, 10), (8, 1, 5, 5))
    """

    @remembered
    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param: ConvParam = {"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1},  # noqa: B006  (read only)
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: Init = 0.01,
        dtype: Any = "float32",
        loss: str | Loss | None = None,
    ) -> None:
        features = [_convolution(input_dim[0], conv_param, weight_init_std, dtype), Relu(), Pooling(2, 2, stride=2)]
        layers = Sequential(
            *features,
            Affine.of(_numbers(features, input_dim), hidden_size, weight_init_std, dtype),
            Relu(),
            Affine.of(hidden_size, output_size, weight_init_std, dtype),
        )
        super().__init__(layers, input_dim, loss=loss)


def _conv3(filters: int, pad: int = 1) -> ConvParam:
    return {"filter_num": filters, "filter_size": 3, "pad": pad, "stride": 1}


class DeepConvNet(Network):
    """conv – conv – pool, three times, then affine – relu – dropout – affine – dropout: 99 % and more on MNIST.

    First weights are He's (2015).

    Args:
        input_dim: (C, H, W).
        conv_param_1 … conv_param_6: filter_num, filter_size, pad, stride.
        hidden_size, output_size: numbers of units.
    """

    @remembered
    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param_1: ConvParam = _conv3(16),  # noqa: B008  (read only)
        conv_param_2: ConvParam = _conv3(16),  # noqa: B008
        conv_param_3: ConvParam = _conv3(32),  # noqa: B008
        conv_param_4: ConvParam = _conv3(32, pad=2),  # noqa: B008
        conv_param_5: ConvParam = _conv3(64),  # noqa: B008
        conv_param_6: ConvParam = _conv3(64),  # noqa: B008
        hidden_size: int = 50,
        output_size: int = 10,
        dtype: Any = "float32",
        loss: str | Loss | None = None,
    ) -> None:
        convolutions = (conv_param_1, conv_param_2, conv_param_3, conv_param_4, conv_param_5, conv_param_6)
        features: list[Any] = []
        channels = input_dim[0]
        for number, param in enumerate(convolutions, 1):
            features += [_convolution(channels, param, "he", dtype), Relu()]
            channels = param["filter_num"]
            if number % 2 == 0:
                features.append(Pooling(2, 2, stride=2))
        layers = Sequential(
            *features,
            Affine.of(_numbers(features, input_dim), hidden_size, "he", dtype),
            Relu(),
            Dropout(0.5),
            Affine.of(hidden_size, output_size, "he", dtype),
            Dropout(0.5),
        )
        super().__init__(layers, input_dim, loss=loss)


class ConvNet(Network):
    """(conv – batch normalization – relu – pool) twice, conv – batch normalization – relu, dropout, affine.

    Smaller and faster to train than ``DeepConvNet``, and as accurate.

    Args:
        input_dim: (C, H, W).
        filters: filters of the 5×5, the 3×3 and the last 3×3 convolution, which is not padded.
        dropout_ratio: share of numbers dropped before the affine layer, from 0 to below 1.
        output_size: number of classes.

    Examples:
        >>> from training import ConvNet
        >>> ConvNet((1, 28, 28), filters=(8, 16, 32)).config["arguments"]["filters"]
        [8, 16, 32]
    """

    @remembered
    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        filters: tuple[int, int, int] = (16, 32, 64),
        dropout_ratio: float = 0.5,
        output_size: int = 10,
        dtype: Any = "float32",
        loss: str | Loss | None = None,
    ) -> None:
        features: list[Any] = []
        channels = input_dim[0]
        for count, kernel, pad, pooled in zip(filters, (5, 3, 3), (2, 1, 0), (True, True, False), strict=True):
            features += [Convolution.of(channels, count, kernel, pad=pad, dtype=dtype)]
            features += [BatchNormalization.of(count, dtype=dtype), Relu()]
            features += [Pooling(2, 2, stride=2)] if pooled else []
            channels = count
        affine = Affine.of(_numbers(features, input_dim), output_size, "xavier", dtype)
        super().__init__(Sequential(*features, Dropout(dropout_ratio), affine), input_dim, loss=loss)


MODELS: dict[str, type[Network]] = {
    model.__name__: model for model in (TwoLayerNet, MultiLayerNet, SimpleConvNet, DeepConvNet, ConvNet)
}


def build(config: Mapping[str, Any], loss: str | Loss | None = None) -> Network:
    """Return a network by its ``config``, ``{"model": name, "arguments": {…}}``, with fresh weights and a loss.

    Raises:
        TypeError: ``config`` is not a dictionary.
        ValueError: there is no such model, or it does not take such arguments.
        OutOfMemoryError: the network is too large for the memory.

    Examples:
        >>> from training.models import build
        >>> arguments = {"input_size": 4, "hidden_size": 3, "output_size": 2}
        >>> build({"model": "TwoLayerNet", "arguments": arguments}).params.flat.size
        23
    """
    instance("config", config, Mapping, "a dictionary")
    name = config.get("model")
    if not isinstance(name, str) or name not in MODELS:
        raise ValueError(f"model is one of {', '.join(MODELS)}, not {clipped(name)}")
    arguments = checked_arguments(MODELS[name], config.get("arguments", {}))
    try:
        return MODELS[name](**arguments, loss=loss)
    except (TypeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{name} cannot be built from {clipped(arguments)}: {error}") from error


def build_for(name: str, input_dim: tuple[int, ...], classes: int, loss: str | Loss | None = None) -> Network:
    """Return the model called ``name`` in the size for inputs and a number of classes, with fresh weights.

    Args:
        name: of ``MODELS``, ``training.zoo.NETWORKS`` or ``training.zoo.PLACE_NETWORKS``; or a TOML file of layers
            (``training.models.layer_file``).
        input_dim: shape of an input: (C, H, W), (T,) for the networks of characters, or for TwoLayerNet and
            MultiLayerNet any.
        classes: number of classes, or of different characters.
        loss: as ``Network`` takes it.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: there is no such model, or it cannot take inputs of this shape.
        OSError: the file cannot be read.

    Examples:
        >>> from training.models import build_for
        >>> build_for("SimpleConvNet", (3, 32, 32), 5).classes
        5
        >>> build_for("CharLSTM", (50,), 65).output_dim  # a score of each character, behind each of 50
        (50, 65)
    """
    shape = sizes("input_dim", input_dim, 1)
    if isinstance(name, str) and name.endswith(SUFFIX):
        return build_from_file(Path(name), shape, size("classes", classes), loss)
    name = choice("name", name, (*MODELS, *NETWORKS, *PLACE_NETWORKS))
    arguments: dict[str, Any] = {"output_size": size("classes", classes)}
    if name not in MODELS:
        return Network(layers_of(name, shape, arguments["output_size"]), shape, {"name": name}, loss)
    if name == "TwoLayerNet":
        arguments |= {"input_size": math.prod(shape), "hidden_size": 50}
    elif name == "MultiLayerNet":
        arguments |= {"input_size": math.prod(shape), "hidden_size_list": [100, 100]}
    else:
        arguments["input_dim"] = image_of(name, shape)
    if name == "SimpleConvNet":
        arguments["weight_init_std"] = "he"
    return build({"model": name, "arguments": arguments}, loss)


def _convolution(channels: int, param: ConvParam, init: Init, dtype: Any) -> Convolution:
    return Convolution.of(
        channels, param["filter_num"], param["filter_size"], param["stride"], param["pad"], init=init, dtype=dtype
    )


def _numbers(features: list[Any], input_dim: tuple[int, int, int]) -> int:
    """Return how many numbers the layers make of an image."""
    return math.prod(Sequential(*features).output_shape(input_dim))
