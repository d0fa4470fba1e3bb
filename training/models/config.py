"""Check the config of a model against the signature of its class, before anything is built.

A config comes from a file that anybody may have made. Each argument must have the type of its annotation, and numbers
a size that occurs in real networks.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy

from training.files import clipped

LARGEST = 2**31 - 1
"""The largest whole number that an argument may be."""

MAX_TEXT, MAX_ITEMS = 200, 10_000


class AtLeast(NamedTuple):
    """The minimum of a whole number, in ``Annotated[int, AtLeast(0)]``; without it, the minimum is 1."""

    number: int


def checked_arguments(model: type, arguments: Any) -> dict[str, Any]:
    """Return the arguments of a model's constructor, with tuples for lists where it takes tuples.

    Raises:
        ValueError: an argument is unknown or missing, or not of its type or range.
    """
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise ValueError(f"the arguments of {model.__name__} are {clipped(arguments)}, expected an object")
    parameters = dict(inspect.signature(model).parameters)
    parameters.pop("loss", None)  # described by itself
    hints = get_type_hints(model.__init__, include_extras=True)  # type: ignore[misc]
    unknown = [name for name in arguments if name not in parameters]
    if unknown:
        raise ValueError(f"{model.__name__} takes {', '.join(parameters)}, not {clipped(unknown[0])}")
    missing = [name for name, known in parameters.items() if known.default is known.empty and name not in arguments]
    if missing:
        raise ValueError(f"{model.__name__} needs {', '.join(missing)}")
    try:
        return {name: _checked(name, value, hints.get(name, Any)) for name, value in arguments.items()}
    except _MismatchError as error:
        raise ValueError(f"{model.__name__} cannot be built: {error}") from None


def check_data(config: Mapping[str, Any], input_dim: tuple[int, ...], classes: int) -> None:
    """Check what a config says about the data that its model was trained on.

    Args:
        input_dim: shape of a sample that the model takes.
        classes: number of classes of the model.

    Raises:
        ValueError: ``name`` or ``dataset`` is not a text, ``classes`` are not the names of all classes, or
            ``input_dim`` is not a shape that the model takes; or ``columns`` are not the names of all features, or
            ``target`` is not a text.
    """
    kinds = {"name": str, "dataset": str, "classes": list[str], "input_dim": list[int]}
    for name, kind in kinds.items():
        if name in config:
            _checked(name, config[name], kind)
    names, shape = config.get("classes"), config.get("input_dim")
    if names and len(names) != classes:
        raise ValueError(f"classes: expected {classes} names, one for each class of the model, got {len(names)}")
    columns, target = config.get("columns", []), config.get("target", "")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise ValueError(f"columns: expected a list of names, got {clipped(columns)}")
    if columns and (len(columns),) != input_dim:
        raise ValueError(f"columns: expected names for a model that takes {input_dim}, got {len(columns):,}")
    if not isinstance(target, str):
        raise ValueError(f"target: expected the name of a column, got {clipped(target)}")
    if shape is not None and (not shape or (tuple(shape) != input_dim and (math.prod(shape),) != input_dim)):
        raise ValueError(f"input_dim: expected a shape for a model that takes {input_dim}, got {clipped(shape)}")


class _MismatchError(ValueError):
    pass


def _checked(name: str, value: Any, hint: Any, least: int = 1) -> Any:
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return _checked_dtype(name, value)
    if least_of := [mark.number for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, AtLeast)]:
        return _checked(name, value, inside[0], least_of[0])
    if origin in (Union, types.UnionType):
        for kind in inside:
            try:
                return _checked(name, value, kind)
            except _MismatchError as error:
                mismatch = error
        raise mismatch
    if is_typeddict(hint):
        hints = get_type_hints(hint, include_extras=True)
        if not isinstance(value, Mapping) or value.keys() != hints.keys():
            raise _MismatchError(f"{name} is {clipped(value)}, expected {', '.join(hints)}")
        return {key: _checked(f"{name}[{key!r}]", value[key], hints[key]) for key in hints}
    if origin is tuple and Ellipsis not in inside:
        if not _is_list(value) or len(value) != len(inside):
            raise _MismatchError(f"{name} is {clipped(value)}, expected a list of {len(inside)}")
        return tuple(_checked(f"{name}[{place}]", *pair) for place, pair in enumerate(zip(value, inside, strict=True)))
    if origin in (list, tuple, Sequence):
        if not _is_list(value) or len(value) > MAX_ITEMS:
            raise _MismatchError(f"{name} is {clipped(value)}, expected a list of at most {MAX_ITEMS:,}")
        return [_checked(f"{name}[{place}]", item, inside[0]) for place, item in enumerate(value)]
    return _checked_scalar(name, value, hint, least)


def _checked_scalar(name: str, value: Any, hint: Any, least: int) -> Any:
    is_bool = isinstance(value, bool)
    if hint is int:
        if is_bool or not isinstance(value, (int, numpy.integer)) or not least <= value <= LARGEST:
            raise _MismatchError(f"{name} is {clipped(value)}, expected a whole number from {least} to {LARGEST:,}")
        return int(value)
    if hint is float:
        if is_bool or not isinstance(value, (int, float, numpy.floating)) or not -LARGEST <= value <= LARGEST:
            raise _MismatchError(f"{name} is {clipped(value)}, expected a number")
        return value
    if hint is str and (not isinstance(value, str) or len(value) > MAX_TEXT):
        raise _MismatchError(f"{name} is {clipped(value)}, expected a text of at most {MAX_TEXT} letters")
    if hint is bool and not is_bool:
        raise _MismatchError(f"{name} is {clipped(value)}, expected true or false")
    if hint in (None, type(None)) and value is not None:
        raise _MismatchError(f"{name} is {clipped(value)}, expected nothing")
    return value


def _checked_dtype(name: str, value: Any) -> Any:
    """Return ``value`` if it is a floating dtype: ``dtype`` is the only argument annotated ``Any``."""
    try:
        dtype = numpy.dtype(value) if isinstance(value, (str, type, numpy.dtype)) else None
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in ("float16", "float32", "float64"):
        raise _MismatchError(f"{name} is {clipped(value)}, expected float16, float32 or float64")
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
