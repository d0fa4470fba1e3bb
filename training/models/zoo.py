"""The book's networks, with its constructors, and one of today's.

Any other is a ``training.Network`` over a ``layers.Sequential``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

from backend.checks import LARGEST_SIZE, choice, instance, real, refusal, several, sizes, whole
from kernels.core.geometry import single
from kernels.core.window import Window
from layers import Affine, BatchNormalization, Convolution, Dropout, Pooling, Relu, Sequential, Sigmoid, Tanh
from layers.initializers import LARGEST_DEVIATION, Init, standard_deviation
from training.files import clipped
from training.models.config import AtLeast, checked_arguments
from training.models.network import Network


class ConvParam(TypedDict):
    """A convolution, as the book describes one."""

    filter_num: int
    filter_size: int
    pad: Annotated[int, AtLeast(0)]
    stride: int


class TwoLayerNet(Network):
    """affine – relu – affine.

    Args:
        input_size, hidden_size, output_size: numbers of units.
        weight_init_std: standard deviation of the first weights, or "he" / "xavier".
    """

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, weight_init_std: Init = 0.01, dtype: Any = "float32"
    ) -> None:
        input_size, hidden_size = _size("input_size", input_size), _size("hidden_size", hidden_size)
        output_size, weight_init_std = _size("output_size", output_size), _init(weight_init_std)
        arguments = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "output_size": output_size,
            "weight_init_std": weight_init_std,
        }
        layers = Sequential(
            Affine.of(input_size, hidden_size, weight_init_std, dtype),
            Relu(),
            Affine.of(hidden_size, output_size, weight_init_std, dtype),
        )
        super().__init__(layers, (input_size,), {"model": "TwoLayerNet", "arguments": arguments})


class MultiLayerNet(Network):
    """affine – activation – … – affine, of any depth.

    Args:
        input_size, output_size: numbers of units.
        hidden_size_list: units of each hidden layer.
        activation: "relu", "sigmoid" or "tanh".
        weight_init_std: standard deviation of the first weights, or "he" ("relu") / "xavier" ("sigmoid").
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: Init = "he",
        dtype: Any = "float32",
    ) -> None:
        kinds = {"relu": Relu, "sigmoid": Sigmoid, "tanh": Tanh}
        choice("activation", activation, tuple(kinds))
        if several(hidden_size_list) is None:
            raise refusal(TypeError, "hidden_size_list", "a list of sizes", hidden_size_list)
        input_size, hidden_size_list = _size("input_size", input_size), sizes("hidden_size_list", hidden_size_list, 1)
        output_size, weight_init_std = _size("output_size", output_size), _init(weight_init_std)
        arguments = {
            "input_size": input_size,
            "hidden_size_list": list(hidden_size_list),
            "output_size": output_size,
            "activation": activation,
            "weight_init_std": weight_init_std,
        }
        units = [input_size, *hidden_size_list]
        layers: list[Any] = []
        for inputs, outputs in itertools.pairwise(units):
            layers += [Affine.of(inputs, outputs, weight_init_std, dtype), kinds[activation]()]
        layers.append(Affine.of(units[-1], output_size, weight_init_std, dtype))
        super().__init__(Sequential(*layers), (input_size,), {"model": "MultiLayerNet", "arguments": arguments})


class SimpleConvNet(Network):
    """conv – relu – pool 2×2 – affine – relu – affine.

    Args:
        input_dim: (C, H, W).
        conv_param: filter_num, filter_size, pad, stride.
        hidden_size, output_size: numbers of units.
        weight_init_std: standard deviation of the first weights, or "he" / "xavier".
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param: ConvParam = {"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1},  # noqa: B006  (read only)
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: Init = 0.01,
        dtype: Any = "float32",
    ) -> None:
        input_dim, conv_param = _three("input_dim", input_dim), _checked("conv_param", conv_param)
        hidden_size, output_size = _size("hidden_size", hidden_size), _size("output_size", output_size)
        weight_init_std = _init(weight_init_std)
        arguments = {
            "input_dim": list(input_dim),
            "conv_param": dict(conv_param),
            "hidden_size": hidden_size,
            "output_size": output_size,
            "weight_init_std": weight_init_std,
        }
        convolution = _convolution(input_dim[0], conv_param, weight_init_std, dtype)
        features = [convolution, Relu(), Pooling(2, 2, stride=2)]
        channels, height, width = Sequential(*features).output_shape(tuple(input_dim))
        layers = Sequential(
            *features,
            Affine.of(channels * height * width, hidden_size, weight_init_std, dtype),
            Relu(),
            Affine.of(hidden_size, output_size, weight_init_std, dtype),
        )
        super().__init__(layers, tuple(input_dim), {"model": "SimpleConvNet", "arguments": arguments})


def _conv3(filters: int, pad: int = 1) -> ConvParam:
    return {"filter_num": filters, "filter_size": 3, "pad": pad, "stride": 1}


class DeepConvNet(Network):
    """conv – conv – pool, three times, then affine – relu – dropout – affine – dropout: 99 % and more on MNIST.

    Args:
        input_dim: (C, H, W).
        conv_param_1 … conv_param_6: filter_num, filter_size, pad, stride.
        hidden_size, output_size: numbers of units.
    First weights are He's (2015).
    """

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
    ) -> None:
        input_dim = _three("input_dim", input_dim)
        hidden_size, output_size = _size("hidden_size", hidden_size), _size("output_size", output_size)
        given = (conv_param_1, conv_param_2, conv_param_3, conv_param_4, conv_param_5, conv_param_6)
        convolutions = [_checked(f"conv_param_{number}", param) for number, param in enumerate(given, 1)]
        arguments = {"input_dim": list(input_dim), "hidden_size": hidden_size, "output_size": output_size}
        arguments |= {f"conv_param_{i}": dict(param) for i, param in enumerate(convolutions, 1)}
        features: list[Any] = []
        channels = input_dim[0]
        for number, param in enumerate(convolutions, 1):
            features += [_convolution(channels, param, "he", dtype), Relu()]
            channels = param["filter_num"]
            if number % 2 == 0:
                features.append(Pooling(2, 2, stride=2))
        channels, height, width = Sequential(*features).output_shape(tuple(input_dim))
        layers = Sequential(
            *features,
            Affine.of(channels * height * width, hidden_size, "he", dtype),
            Relu(),
            Dropout(0.5),
            Affine.of(hidden_size, output_size, "he", dtype),
            Dropout(0.5),
        )
        super().__init__(layers, tuple(input_dim), {"model": "DeepConvNet", "arguments": arguments})


class ConvNet(Network):
    """What one would build today: three convolutions, each with batch normalisation and relu, the first two with a
    pooling; dropout; one affine layer. Smaller and quicker to train than ``DeepConvNet``, and as accurate.

    Args:
        input_dim: (C, H, W).
        filters: filters of the 5×5, the 3×3 and the last 3×3 convolution, which is not padded.
        dropout_ratio: before the affine layer.
        output_size: number of classes.
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        filters: tuple[int, int, int] = (16, 32, 64),
        dropout_ratio: float = 0.5,
        output_size: int = 10,
        dtype: Any = "float32",
    ) -> None:
        input_dim, output_size = _three("input_dim", input_dim), _size("output_size", output_size)
        filters = _three("filters", filters)
        dropout_ratio = real("dropout_ratio", dropout_ratio, least=0, below=1)
        arguments = {
            "input_dim": list(input_dim),
            "filters": list(filters),
            "dropout_ratio": dropout_ratio,
            "output_size": output_size,
        }
        features: list[Any] = []
        channels = input_dim[0]
        for count, size, pad, pooled in zip(filters, (5, 3, 3), (2, 1, 0), (True, True, False), strict=True):
            features += [Convolution.of(channels, count, size, pad=pad, dtype=dtype)]
            features += [BatchNormalization.of(count, dtype=dtype), Relu()]
            features += [Pooling(2, 2, stride=2)] if pooled else []
            channels = count
        channels, height, width = Sequential(*features).output_shape(tuple(input_dim))
        layers = Sequential(
            *features,
            Dropout(dropout_ratio),
            Affine.of(channels * height * width, output_size, "xavier", dtype),
        )
        super().__init__(layers, tuple(input_dim), {"model": "ConvNet", "arguments": arguments})


MODELS: dict[str, type[Network]] = {
    model.__name__: model for model in (TwoLayerNet, MultiLayerNet, SimpleConvNet, DeepConvNet, ConvNet)
}


def build(config: Mapping[str, Any]) -> Network:
    """The network that a ``config`` describes: ``{"model": name, "arguments": {…}}``, with fresh weights.

    Raises:
        TypeError: ``config`` is no dictionary.
        ValueError: there is no such model, or it does not take such arguments.
        OutOfMemoryError: it is too large for the memory.
    """
    instance("config", config, Mapping, "a dictionary")
    name = config.get("model")
    if not isinstance(name, str) or name not in MODELS:
        raise ValueError(f"model is one of {', '.join(MODELS)}, not {clipped(name)}")
    arguments = checked_arguments(MODELS[name], config.get("arguments", {}))
    try:
        return MODELS[name](**arguments)
    except (TypeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{name} cannot be built from {clipped(arguments)}: {error}") from error


def build_for(name: str, input_dim: tuple[int, int, int], classes: int) -> Network:
    """The model called ``name`` in the size that images (C, H, W) and so many classes need, with fresh weights.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: there is no such model, or it cannot take images of this size.
    """
    input_dim = _three("input_dim", input_dim)
    arguments: dict[str, Any] = {"output_size": _size("classes", classes)}
    if name == "TwoLayerNet":
        arguments |= {"input_size": math.prod(input_dim), "hidden_size": 50}
    else:
        arguments["input_dim"] = input_dim
    if name == "SimpleConvNet":
        arguments["weight_init_std"] = "he"
    return build({"model": name, "arguments": arguments})


def _convolution(channels: int, param: ConvParam, init: Init, dtype: Any) -> Convolution:
    return Convolution.of(
        channels, param["filter_num"], param["filter_size"], param["stride"], param["pad"], init=init, dtype=dtype
    )


def _size(name: str, value: Any) -> int:
    return whole(name, value, 1, LARGEST_SIZE)


def _three(name: str, value: Any) -> tuple[int, int, int]:
    first, second, third = sizes(name, value, 1, 3)
    return first, second, third


def _init(weight_init_std: Any) -> Init:
    """A name as it is, a number as a plain one, for a model's file."""
    if not isinstance(weight_init_std, str):
        return real("weight_init_std", weight_init_std, least=0, most=LARGEST_DEVIATION)
    try:
        standard_deviation(1, weight_init_std)
    except ValueError:
        expected = "'he' ('relu'), 'xavier' ('sigmoid') or a standard deviation"
        raise refusal(ValueError, "weight_init_std", expected, weight_init_std) from None
    return weight_init_std


def _checked(name: str, param: Any) -> ConvParam:
    """The parameters of a convolution, all four, as plain numbers.

    Raises:
        TypeError: it is no dictionary, or a value no whole number.
        ValueError: a key is missing or unknown, or a number out of its range.
    """
    keys = ("filter_num", "filter_size", "pad", "stride")
    instance(name, param, Mapping, f"a dictionary with {', '.join(keys)}")
    if param.keys() != set(keys):
        raise refusal(ValueError, name, f"a dictionary with {', '.join(keys)}", dict(param))
    window = Window(param["filter_size"], param["stride"], param["pad"])
    stride, pad = single(window.stride), single(window.padding)
    filters = _size(f"{name}['filter_num']", param["filter_num"])
    return {"filter_num": filters, "filter_size": single(window.kernel), "pad": pad, "stride": stride}
