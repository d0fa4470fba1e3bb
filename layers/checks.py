"""Errors that layers share: what was given, what is needed."""

from __future__ import annotations

from typing import Any

from backend import array_module, require_active


def floating(owner: str, **arrays: Any) -> None:
    """Raises unless all arrays are of one floating dtype and one library.

    Raises:
        TypeError: an argument is no array or not floating, dtypes differ, host and device arrays are mixed, or all
            lie on another device than the active one.
    """
    for name, array in arrays.items():
        if not hasattr(array, "dtype") or array.dtype.kind != "f":
            given = array.dtype if hasattr(array, "dtype") else type(array).__name__
            raise TypeError(f"{owner} needs {name} as a floating-point array, got {given}")
    array_module(*arrays.values())
    require_active(next(iter(arrays.values())))
    if len({array.dtype for array in arrays.values()}) > 1:
        given = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{owner} needs one dtype, got {given}")


def as_parameter(owner: str, x: Any, parameter: Any) -> Any:
    """``x`` in the dtype of a layer's parameter: the parameters decide what a network computes in.

    Book code draws float64 weights and feeds float32 images: that makes a float64 network, here as there.

    Raises:
        TypeError: ``x`` is not a floating array, or not on the parameter's and the active device.
    """
    array_module(x, parameter)  # before the others: a mix is what is wrong then, not the active device
    if getattr(x, "dtype", None) == parameter.dtype:  # which is floating: the common case, in every layer of every step
        require_active(x)
        return x
    floating(owner, x=x)
    return x.astype(parameter.dtype, copy=False)


def more_than_one_score(owner: str, scores: int) -> None:
    """Refuse a softmax loss over one score, which is 0 whatever the score, so that nothing would be learned.

    Raises:
        ValueError: with the remedy.
    """
    if scores == 1:
        raise ValueError(
            f"{owner}: one score a sample has a softmax of 1 and a loss of 0 whatever the score; a classifier needs a "
            "score for each class: two for yes or no"
        )
