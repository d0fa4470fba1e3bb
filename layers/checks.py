"""Checks that layers share. Errors say what was expected and what was given."""

from __future__ import annotations

from typing import Any

from backend import is_array, require_active, require_same_device
from backend.checks import FLOATING, sizes


def floating(owner: str, **arrays: Any) -> None:
    """Check that all arrays have one floating dtype and lie on the active device.

    Raises:
        TypeError: an argument is not an array or not floating, dtypes differ, host and device arrays are mixed, or the
            arrays lie on another device than the active one.
    """
    for name, array in arrays.items():
        if getattr(array, "dtype", None) not in FLOATING or not is_array(array):
            raise TypeError(f"{owner} needs {name} as a floating-point array, got {kind_of(array)}")
    several = len(arrays) > 1
    if several:
        require_same_device(*arrays.values())
    require_active(next(iter(arrays.values())))
    if several and len({array.dtype for array in arrays.values()}) > 1:
        given = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{owner} needs one dtype, got {given}")


def filters(owner: str, expected: str, axes: int, axis: int, W: Any, b: Any) -> None:
    """Check the weights of a layer, of so many axes, and its bias, as long as their ``axis``, or None.

    Raises:
        TypeError: as ``floating`` does.
        ValueError: with the shapes that were expected.
    """
    floating(owner, W=W) if b is None else floating(owner, W=W, b=b)
    if W.ndim != axes or (b is not None and b.shape != W.shape[axis : axis + 1]) or not W.size:
        given = f"{W.shape}" if b is None else f"{W.shape} and {b.shape}"
        raise ValueError(f"{owner} needs {expected}, got {given}")


def input_shape(layer: Any, x: Any) -> None:
    """Check that a layer takes samples of the shape that ``x`` (N, …) has.

    Raises:
        ValueError: with the layer's name.
    """
    try:
        layer.output_shape(x.shape[1:])
    except ValueError as error:
        raise ValueError(f"{layer!r} {error}") from None


def more_than_one_score(owner: str, scores: int) -> None:
    """Check that there are two scores or more: over one the softmax loss is always 0, and nothing would be learned.

    Raises:
        ValueError: with the remedy.
    """
    if scores == 1:
        raise ValueError(
            f"{owner}: expected a score for each class (two for yes or no), got one score per sample, whose softmax is "
            "always 1 and whose loss is always 0; SigmoidWithLoss takes one score for yes or no, MeanSquaredError one "
            "number"
        )


def image_shape(shape: Any, channels: int | None = None) -> tuple[int, int, int]:
    """Return ``shape`` as that of an image, (C, H, W).

    Args:
        channels: the number that C must be, or None for any.

    Raises:
        TypeError: ``shape`` is not a tuple of whole numbers.
        ValueError: it does not have three axes, or another number of channels.
    """
    given = sizes("shape", shape)
    if len(given) != 3 or channels not in (None, given[0]):
        with_channels = "" if channels is None else f" with {channels} channels"
        raise ValueError(f"takes images (C, H, W){with_channels}, got {given}")
    return given[0], given[1], given[2]


def sequence_shape(shape: Any, features: int, longest: int | None = None) -> tuple[int, int]:
    """Return ``shape`` as that of a sequence, (T, features).

    Args:
        features: the number of features that it must have.
        longest: the most steps that it may have; None for any number.

    Raises:
        TypeError: ``shape`` is not a tuple of whole numbers.
        ValueError: it does not have two axes, or another number of features, or too many steps.
    """
    given = sizes("shape", shape)
    if len(given) != 2 or given[1] != features or (longest is not None and given[0] > longest):
        at_most = "" if longest is None else f" with T up to {longest}"
        raise ValueError(f"takes sequences (T, {features}){at_most}, got {given}")
    return given[0], given[1]


def kind_of(value: Any) -> str:
    """Return the dtype of an array, the type of anything else, for an error message."""
    return str(value.dtype) if is_array(value) else type(value).__name__
