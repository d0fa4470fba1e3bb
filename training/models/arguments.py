"""Check the arguments of the models' constructors by name, and keep them as the network's ``config``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypedDict

from backend.checks import LARGEST_SIZE, choice, instance, real, refusal, several, sizes, whole
from kernels.core.geometry import single
from kernels.core.window import Window
from layers.initializers import LARGEST_DEVIATION, Init, standard_deviation
from training.models.config import AtLeast

ACTIVATIONS = ("relu", "sigmoid", "tanh")


class ConvParam(TypedDict):
    """A convolution, as the book describes one."""

    filter_num: int
    filter_size: int
    pad: Annotated[int, AtLeast(0)]
    stride: int


Parameters = ParamSpec("Parameters")


def remembered(init: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Check the arguments of a model's ``__init__`` before it runs, and set ``config`` to what makes the model again.

    ``init`` gets plain numbers and tuples. ``config`` has the class of ``init`` and its arguments without ``dtype``, in
    the types of JSON.
    """
    signature, model = inspect.signature(init), init.__qualname__.partition(".")[0]

    @wraps(init)
    def checked_init(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{model}: {error}") from None
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name in _CHECKS:
                bound.arguments[name] = _CHECKS[name](name, value)
        init(*bound.args, **bound.kwargs)
        network: Any = args[0]
        arguments = {name: _as_json(value) for name, value in bound.arguments.items() if name in _CHECKS}
        network.config = {"model": model, "arguments": arguments}

    return checked_init


def size(name: str, value: Any) -> int:
    """Return a number of units, channels or classes, from 1."""
    return whole(name, value, 1, LARGEST_SIZE)


def three(name: str, value: Any) -> tuple[int, int, int]:
    """Return three sizes, such as (C, H, W)."""
    first, second, third = sizes(name, value, 1, 3)
    return first, second, third


def _hidden_sizes(name: str, value: Any) -> tuple[int, ...]:
    if several(value) is None:
        raise refusal(TypeError, name, "a list of sizes", value)
    return sizes(name, value, 1)


def _weights(name: str, value: Any) -> Init:
    """Return the name of an initializer as it is, a standard deviation as a plain number."""
    if not isinstance(value, str):
        return real(name, value, least=0, most=LARGEST_DEVIATION)
    try:
        standard_deviation(1, value)
    except ValueError:
        expected = "'he' ('relu'), 'xavier' ('sigmoid') or a standard deviation"
        raise refusal(ValueError, name, expected, value) from None
    return value


def _convolution(name: str, value: Any) -> ConvParam:
    """Return the parameters of a convolution, all four, as plain numbers.

    Raises:
        TypeError: ``value`` is not a dictionary, or a number in it not a whole one.
        ValueError: a key is missing or unknown, or a number out of its range.
    """
    keys = ("filter_num", "filter_size", "pad", "stride")
    instance(name, value, Mapping, f"a dictionary with {', '.join(keys)}")
    if value.keys() != set(keys):
        raise refusal(ValueError, name, f"a dictionary with {', '.join(keys)}", dict(value))
    window = Window(value["filter_size"], value["stride"], value["pad"])
    stride, pad = single(window.stride), single(window.padding)
    filters = size(f"{name}['filter_num']", value["filter_num"])
    return {"filter_num": filters, "filter_size": single(window.kernel), "pad": pad, "stride": stride}


def _ratio(name: str, value: Any) -> float:
    return real(name, value, least=0, below=1)


def _activation(name: str, value: Any) -> str:
    return choice(name, value, ACTIVATIONS)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "input_size": size,
    "hidden_size": size,
    "hidden_size_list": _hidden_sizes,
    "output_size": size,
    "input_dim": three,
    "filters": three,
    "conv_param": _convolution,
    **{f"conv_param_{number}": _convolution for number in range(1, 7)},
    "activation": _activation,
    "dropout_ratio": _ratio,
    "weight_init_std": _weights,
}
"""The check of each argument, by its name in every model."""


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
