"""Check targets that are numbers: probabilities of labels, or values to be predicted.

Shape and dtype can be checked anywhere. Numbers are read on the host alone, since reading them from a device would wait
for it: there a loss is NaN where a target is not one that it takes.
"""

from __future__ import annotations

from typing import Any

import numpy

from backend import require_plain
from backend.types import Array


def check(t: Any, outputs: tuple[int, ...], *, least: float | None = None, most: float | None = None) -> None:
    """Refuse targets that do not fit the outputs; their numbers are looked at where ``t`` lies on the host.

    Args:
        t: the targets.
        outputs: shape (N, …) of what is compared with them.
        least, most: the range of a target; None for any finite number.

    Raises:
        TypeError: ``t`` is not an array of numbers.
        ValueError: wrong shape; or a number is not finite or out of range. The first such is named.
    """
    check_form(t, outputs)
    if isinstance(t, numpy.ndarray):
        check_range(t, least, most)


def check_form(t: Any, outputs: tuple[int, ...]) -> None:
    """Refuse targets by type, dtype and shape alone; arguments and errors as of ``check``."""
    if not hasattr(t, "dtype"):
        raise TypeError(f"targets t must be an array, got {type(t).__name__}")
    require_plain(t)
    if t.dtype.kind not in "biuf" or (t.dtype.kind == "f" and t.dtype.itemsize > 8):
        raise TypeError(f"targets t must be numbers, got {t.dtype}")
    if t.shape != outputs and not (outputs[1:] == (1,) and t.shape == outputs[:1]):
        forms = f"{outputs[:1]} or {outputs}" if outputs[1:] == (1,) else f"{outputs}"
        raise ValueError(f"targets t for outputs of {outputs} must be of shape {forms}, got {t.shape}")


def check_range(t: numpy.ndarray, least: float | None = None, most: float | None = None) -> None:
    """Raise a ValueError that names the first target in ``t``, on the host, that is not finite or out of range."""
    index = find_wrong(t, least, most)
    if index is not None:
        raise ValueError(range_error(t, index, least, most))


def find_wrong(t: numpy.ndarray, least: float | None = None, most: float | None = None) -> tuple[int, ...] | None:
    """Return the index of the first target, on the host, that is not finite or out of range; None if there is none."""
    if not t.size or t.dtype.kind == "b":
        return None
    low, high = numpy.minimum.reduce(t, axis=None), numpy.maximum.reduce(t, axis=None)  # NaN where there is one
    bounds = (-numpy.inf if least is None else least, numpy.inf if most is None else most)
    if numpy.isfinite(low) and numpy.isfinite(high) and bounds[0] <= low and high <= bounds[1]:
        return None
    fits = numpy.isfinite(t) & (t >= bounds[0]) & (t <= bounds[1])
    return tuple(int(i) for i in numpy.unravel_index(int(fits.argmin()), t.shape))


def range_error(t: numpy.ndarray, index: tuple[int, ...], least: float | None, most: float | None) -> str:
    """Return the error message for the target at ``index``."""
    at = f"{index[0]}" if len(index) == 1 else f"{index}"
    if least is None or most is None:
        return f"target {t[index]:g} at index {at} must be a finite number"
    return f"target {t[index]:g} at index {at} is out of range: expected {least:g} to {most:g}"


def as_outputs(t: Array, outputs: Array) -> Array:
    """Return targets that ``check_form`` has accepted in the shape and dtype of the outputs."""
    return t.reshape(outputs.shape).astype(outputs.dtype, copy=False)
