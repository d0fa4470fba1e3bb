"""Parameters and gradients as attributes of layers: ``W, dW = parameter()`` in a class body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend import array_module, is_array
from backend.checks import refusal

if TYPE_CHECKING:
    from layers.base import Layer


class Parameter:
    """A learned array of a layer as an attribute, kept in ``layer.params`` under the attribute's name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else layer._params.get(self.name)

    def __set__(self, layer: Any, value: Any) -> None:
        _assign(layer, layer._params, self.name, value)


class Gradient:
    """The gradient of a parameter as an attribute (``dW`` of ``W``), kept in ``layer.grads`` under ``"W"``.

    None before the first backward.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name
        self.name = name[1:]

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else layer._grads.get(self.name)

    def __set__(self, layer: Any, value: Any) -> None:
        _assign(layer, layer._grads, self.name, value)


class _Misspelt:
    """A gradient's name as another spelling: to set it is an error, since nothing would read it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        raise AttributeError(f"there is no {self.attribute}: the gradient of {self.name!r} is called 'd{self.name}'")

    def __set__(self, layer: Any, value: Any) -> None:
        name = f"{type(layer).__name__}.{self.attribute}"
        raise AttributeError(f"{name} is no gradient: that of {self.name!r} is called 'd{self.name}'")


def guard_spellings(kind: type) -> None:
    """Refuse other spellings of the gradients that a layer's class body declares, unless it uses them itself."""
    for name in [name for name, value in vars(kind).items() if isinstance(value, Parameter)]:
        for other in (name.lower(), name.upper(), name.capitalize(), f"_{name}"):
            attribute = f"d{other}"
            if not hasattr(kind, attribute):
                guard = _Misspelt(name)
                guard.__set_name__(kind, attribute)
                setattr(kind, attribute, guard)


def parameter() -> tuple[Any, Any]:
    """A parameter and its gradient, for a layer's class body: ``W, dW = parameter()``.

    The gradient's name is the parameter's behind a "d"; a class with another is a TypeError.
    """
    return Parameter(), Gradient()


def check_declared(kind: type) -> None:
    """Raises unless each parameter in a layer's class body stands beside a gradient of its name."""
    declared = vars(kind)
    parameters = {name for name, value in declared.items() if isinstance(value, Parameter)}
    gradients = [value for value in declared.values() if isinstance(value, Gradient)]
    unpaired = sorted(parameters - {gradient.name for gradient in gradients if gradient.attribute[:1] == "d"})
    for name, value in declared.items():
        if isinstance(value, tuple) and any(isinstance(part, Parameter) for part in value):
            raise TypeError(f"{kind.__name__}.{name} = parameter() makes two attributes: write {name}, d{name} = …")
    for name in unpaired:
        raise TypeError(
            f"{kind.__name__} has a parameter {name!r}, whose gradient must be called 'd{name}', got "
            f"{', '.join(repr(gradient.attribute) for gradient in gradients) or 'none'}: write "
            f"{name}, d{name} = parameter()"
        )
    for gradient in gradients:
        if gradient.name not in parameters or gradient.attribute[:1] != "d":
            raise TypeError(
                f"{kind.__name__}.{gradient.attribute} is the gradient of no parameter: those of "
                f"{', '.join(sorted(parameters)) or 'none'} are called by their names behind a 'd'"
            )


def _assign(layer: Layer, arrays: dict[str, Any], name: str, value: Any) -> None:
    kept = arrays.get(name)
    if value is kept:
        return
    if layer._bound or (is_array(kept) and arrays is layer._params):
        if not is_array(value) or value.dtype.kind not in "fiu":
            raise refusal(TypeError, f"{type(layer).__name__}.{name}", "an array of numbers", value)
        array_module(value, kept)  # refuses a mix of host and device arrays
    if not layer._bound:
        arrays[name] = value
        return
    assert kept is not None
    if value.shape != kept.shape:
        raise ValueError(f"{type(layer).__name__}.{name} has shape {kept.shape}, cannot take {value.shape}")
    kept[...] = value  # a model's flat buffer: its address is what the optimizer knows
