"""Check the arrays that an optimizer is given: names, shapes and dtypes."""

from collections.abc import Mapping
from typing import Any

from backend.types import Array
from training.models.parameters import ParameterDict

Arrays = Mapping[str, Array]
Layout = list[tuple[str, tuple[int, ...], Any]]
"""Name, shape and dtype of each array, in order."""


def layout_of(what: str, arrays: Arrays) -> Layout:
    """Return the layout of ``arrays``; raise a TypeError, which calls them ``what``, if a value is not an array."""
    if isinstance(arrays, ParameterDict):
        return arrays.layout
    try:
        return [(name, array.shape, array.dtype) for name, array in arrays.items()]
    except AttributeError:
        name, value = next((n, v) for n, v in arrays.items() if not hasattr(v, "dtype"))
        raise TypeError(f"{what}[{name!r}] is {type(value).__name__}, not an array") from None


def describe_names(missing: list[str], extra: list[str]) -> str:
    """Return which names are missing and which are unknown, in words."""
    found = (("lacks", missing), ("has unknown", extra))
    return " and ".join(f"{word} {', '.join(map(repr, names))}" for word, names in found if names)


def check_parameters(xp: Any, params: Arrays) -> None:
    """Raise unless every parameter can be updated in place."""
    for name, p in params.items():
        if not isinstance(p, xp.ndarray) or p.dtype.kind != "f":
            kind = f"of dtype {p.dtype}" if isinstance(p, xp.ndarray) else type(p).__name__
            raise TypeError(f"params[{name!r}] is {kind}; an optimizer needs floating-point arrays")
        if not getattr(p.flags, "writeable", True):
            raise ValueError(f"params[{name!r}] is read-only; an optimizer changes it in place")


def check_same_layout(params: Layout, grads: Layout) -> None:
    """Raise unless ``grads`` has arrays of the names, shapes and dtypes of ``params``, in any order."""
    given = {name: (shape, dtype) for name, shape, dtype in grads}
    wanted = {name: (shape, dtype) for name, shape, dtype in params}
    if given.keys() != wanted.keys():
        missing = [name for name in wanted if name not in given]
        extra = [name for name in given if name not in wanted]
        raise ValueError(f"grads and params differ: grads {describe_names(missing, extra)}")
    for name, (shape, dtype) in wanted.items():
        if given[name] != (shape, dtype):
            raise ValueError(
                f"grads[{name!r}] is {given[name][1]}{list(given[name][0])}, "
                f"but params[{name!r}] is {dtype}{list(shape)}"
            )


def check_state(slot: str, state: Arrays, layout: Layout) -> None:
    """Raise unless the state has one array for each parameter, of the shape and dtype in ``layout``."""
    missing = [name for name, _, _ in layout if name not in state]
    extra = [name for name in state if name not in {name for name, _, _ in layout}]
    if missing or extra:
        raise ValueError(f"the optimizer's state {slot!r} is of other parameters: it {describe_names(missing, extra)}")
    for name, shape, dtype in layout:
        held = state[name]
        if held.shape != shape or held.dtype != dtype:
            raise ValueError(
                f"the optimizer's state {slot!r} of {name!r} is {held.dtype}{list(held.shape)}, "
                f"but the parameter needs {dtype}{list(shape)}"
            )
