"""Errors that layers share: what was given, what is needed."""

from __future__ import annotations

from typing import Any

from backend import array_module, is_array, require_active
from backend.checks import FLOATING, sizes


def floating(owner: str, **arrays: Any) -> None:
    """Raises unless all arrays are of one floating dtype and one library.

    Raises:
        TypeError: an argument is no array or not floating, dtypes differ, host and device arrays are mixed, or all
            lie on another device than the active one.
    """
    for name, array in arrays.items():
        if getattr(array, "dtype", None) not in FLOATING or not is_array(array):
            raise TypeError(f"{owner} needs {name} as a floating-point array, got {_kind(array)}")
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
    # The common case, in every layer of every step. (The dtype None would be equal to float64.)
    if getattr(x, "dtype", "none") == parameter.dtype:
        require_active(x)
        return x
    if not is_array(x) or x.dtype.kind != "f":
        raise TypeError(f"{owner} needs x as a floating-point array, got {_kind(x)}")
    require_active(x)
    return x.astype(parameter.dtype, copy=False)


def input_shape(layer: Any, x: Any) -> None:
    """Refuse an input (N, …) with samples of a shape that a layer does not take.

    Raises:
        ValueError: with the layer's name.
    """
    try:
        layer.output_shape(x.shape[1:])
    except ValueError as error:
        raise ValueError(f"{layer!r} {error}") from None


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


def image_shape(shape: Any, channels: int | None = None) -> tuple[int, int, int]:
    """``shape`` as that of an image, (C, H, W), with so many channels.

    Raises:
        TypeError: it is no shape.
        ValueError: it is that of something else.
    """
    given = sizes("shape", shape)
    if len(given) != 3 or channels not in (None, given[0]):
        with_channels = "" if channels is None else f" with {channels} channels"
        raise ValueError(f"takes images (C, H, W){with_channels}, got {given}")
    return given[0], given[1], given[2]


def _kind(value: Any) -> str:
    return str(value.dtype) if is_array(value) else type(value).__name__
