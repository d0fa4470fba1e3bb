"""Parameters and gradients as attributes of layers: ``W, dW = parameter()`` in a class body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend import is_array, require_active, require_same_device
from backend.checks import refusal
from backend.types import Array
from layers import checks

if TYPE_CHECKING:
    from layers.base import Layer


def parameter() -> tuple[Any, Any]:
    """Return a parameter and its gradient, for the class body of a layer: ``W, dW = parameter()``.

    The gradient is named "d" and the parameter's name; a class with another name for it is a TypeError.

    Examples:
        >>> from backend import xp
        >>> from layers import Layer, parameter
        >>> class Scale(Layer):
        ...     k, dk = parameter()
        ...
        ...     def __init__(self, k):
        ...         self.k = k
        >>> Scale(xp.ones(3)).params
        {'k': array([1., 1., 1.])}
    """
    return Parameter(), Gradient()


class Parameter:
    """A learned array of a layer as an attribute, kept in ``layer.params`` under the attribute's name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else layer._params.get(self.name)

    def __set__(self, layer: Any, value: Any) -> None:
        kept = layer._params.get(self.name)
        if is_array(kept):
            _check_array(layer, self.name, kept, value)
        if layer._bound:
            _copy(layer, self.name, kept, value)
        else:
            layer._params[self.name] = value


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
        if not layer._bound:
            layer._grads[self.name] = value
            return
        kept = layer._grads[self.name]
        _check_array(layer, self.attribute, kept, value)
        _copy(layer, self.attribute, kept, value)


class _Misspelt:
    """A gradient's name in another spelling, where assignment is an error: nothing would read the value."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        raise AttributeError(f"there is no {self.attribute}: the gradient of {self.name!r} is called 'd{self.name}'")

    def __set__(self, layer: Any, value: Any) -> None:
        name = f"{type(layer).__name__}.{self.attribute}"
        raise AttributeError(f"{name} is not a gradient: that of {self.name!r} is called 'd{self.name}'")


def as_parameter(owner: str, x: Any, parameter: Array) -> Array:
    """Return ``x`` in the dtype of a layer's parameter: parameters decide which dtype a network computes in.

    Book code draws float64 weights and feeds float32 images: that makes a float64 network, here as there.

    Raises:
        TypeError: ``x`` is not a floating array, or not on the parameter's and the active device.
    """
    if type(x) is not type(parameter):
        require_same_device(x, parameter)  # before the other checks: a mix is the error then, not the active device
    # The common case, in every layer of every step. (The dtype None would be equal to float64.)
    if getattr(x, "dtype", "none") == parameter.dtype:
        require_active(x)
        return x
    if not is_array(x) or x.dtype.kind != "f":
        raise TypeError(f"{owner} needs x as a floating-point array, got {checks.kind_of(x)}")
    require_active(x)
    return x.astype(parameter.dtype, copy=False)


def guard_spellings(kind: type) -> None:
    """Refuse other spellings of the gradients that a layer's class body declares, unless it uses them itself."""
    for name in [name for name, value in vars(kind).items() if isinstance(value, Parameter)]:
        for other in (name.lower(), name.upper(), name.capitalize(), f"_{name}"):
            attribute = f"d{other}"
            if not hasattr(kind, attribute):
                guard = _Misspelt(name)
                guard.__set_name__(kind, attribute)
                setattr(kind, attribute, guard)


def check_declared(kind: type) -> None:
    """Check that parameters and gradients in a layer's class body belong together by their names.

    Raises:
        TypeError: with the declaration that was expected.
    """
    declared = vars(kind)
    parameters = [name for name, value in declared.items() if isinstance(value, Parameter)]
    gradients = [name for name, value in declared.items() if isinstance(value, Gradient)]
    for name, value in declared.items():
        if isinstance(value, tuple) and any(isinstance(part, Parameter) for part in value):
            raise TypeError(f"{kind.__name__}.{name} = parameter() makes two attributes: write {name}, d{name} = …")
    for name in parameters:
        if f"d{name}" not in gradients:
            raise TypeError(
                f"{kind.__name__} has a parameter {name!r}, whose gradient must be called 'd{name}', got "
                f"{', '.join(map(repr, gradients)) or 'none'}: write {name}, d{name} = parameter()"
            )
    for gradient in gradients:
        if gradient not in [f"d{name}" for name in parameters]:
            raise TypeError(
                f"{kind.__name__}.{gradient} is a gradient without its parameter: expected a parameter "
                f"{gradient[1:]!r}, got {', '.join(map(repr, parameters)) or 'none'}"
            )


def _check_array(layer: Layer, attribute: str, kept: Array, value: Any) -> None:
    if not is_array(value) or value.dtype.kind not in "fiu":
        raise refusal(TypeError, f"{type(layer).__name__}.{attribute}", "an array of numbers", value)
    require_same_device(value, kept)


def _copy(layer: Layer, attribute: str, kept: Array, value: Array) -> None:
    """Copy ``value`` into ``kept``, a view of a network's flat buffer, whose address the optimizer knows."""
    if value.shape != kept.shape:
        raise ValueError(f"{type(layer).__name__}.{attribute} must have shape {kept.shape}, got {value.shape}")
    kept[...] = value
