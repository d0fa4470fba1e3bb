"""Check labels: the one mechanism behind losses, accuracies, loaders and data sets.

Labels are class indices (N,), of any integer dtype, or, where a function says so, a distribution (one-hot or soft) for
each sample (N, classes). Their form can be checked anywhere; values only on the host, since reading them from a device
would wait for it: there a loss is NaN where a label is out of range.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy

from backend import array_module, require_plain
from backend.types import Array
from kernels import targets


def check(t: Any, scores: tuple[int, ...], *, distributions: bool = True) -> None:
    """Refuse labels that do not fit scores; values are looked at where ``t`` lies on the host.

    Args:
        t: the labels.
        scores: shape (N, classes).
        distributions: whether (N, classes) will do as well as indices (N,).

    Raises:
        TypeError: ``t`` is not an array, or not of an integer dtype (distributions: boolean, integer or floating).
        ValueError: wrong shape; a label is out of range, or a number of a distribution is not finite. The first such is
            named.
    """
    check_form(t, scores, distributions=distributions)
    if not isinstance(t, numpy.ndarray):
        return
    if t.ndim == 1:
        check_range(t, scores[1])
    else:
        check_distributions(t)


def check_distributions(t: numpy.ndarray) -> None:
    """Raise a ValueError that names the first number of distributions that is not finite, of samples or of places."""
    bad = targets.find_wrong(t) if t.dtype.kind == "f" else None
    if bad is None:
        return
    axis = 1 if t.ndim in (2, 4) else t.ndim - 1
    at = tuple(index for place, index in enumerate(bad) if place != axis)
    place = at if at[1:] else at[0]
    raise ValueError(f"labels are finite; {t[bad]} was given for class {bad[axis]} at index {place}")


def check_form(t: Any, scores: tuple[int, ...], *, distributions: bool = True) -> None:
    """Refuse labels by type, dtype and shape alone; arguments and errors as of ``check``."""
    if not hasattr(t, "dtype"):
        raise TypeError(f"labels are an array, not {type(t).__name__}")
    require_plain(t)
    if t.shape != scores[:1] and not (distributions and t.shape == scores):
        forms = f"{scores[:1]} or {scores}" if distributions else f"{scores[:1]}"
        raise ValueError(f"labels for scores of {scores} are {forms}, got {t.shape}")
    if t.ndim == 1:
        check_dtype(t)
    elif t.dtype.kind not in "biuf":
        raise TypeError(f"labels of shape (N, classes) are numbers, got {t.dtype}")


def check_dtype(t: Any) -> None:
    """Raise a TypeError unless labels are of an integer dtype."""
    if t.dtype.kind not in "iu":
        raise TypeError(f"labels are class indices, of an integer dtype, got {t.dtype}")


def check_range(t: numpy.ndarray, classes: int) -> None:
    """Raise a ValueError that names the first label in ``t`` (N, …), on the host, that is not below ``classes``."""
    bad = find_out_of_range(t.reshape(-1), classes)
    if bad is not None:
        index = tuple(int(i) for i in numpy.unravel_index(bad, t.shape))
        raise ValueError(range_error(t, index, classes))


def find_out_of_range(t: numpy.ndarray, classes: int) -> int | None:
    """Return the place of the first label in ``t`` (N,), on the host, that is out of range; None if there is none."""
    dtype, end = _unsigned(t.dtype, classes)
    unsigned = t.view(dtype)
    if not len(t) or numpy.maximum.reduce(unsigned) < end:
        return None
    return int(numpy.argmax(unsigned >= end))


@functools.lru_cache(maxsize=256)
def _unsigned(dtype: numpy.dtype, classes: int) -> tuple[numpy.dtype, int]:
    """Return the unsigned dtype of a dtype's size, and the first number in it that is no index.

    A negative index is at least 2ⁿ⁻¹ there: more than any of n bits, but perhaps fewer than there are classes.
    """
    end = min(classes, 1 << (8 * dtype.itemsize - (dtype.kind == "i")))
    return numpy.dtype(dtype.str.replace("i", "u")), end


def range_error(t: numpy.ndarray, index: int | tuple[int, ...], classes: int) -> str:
    """Return the error message for the label at ``index``."""
    at = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    return f"label {t[index]} at index {at} is out of range: expected 0 to {classes - 1}"


def words_of(t: Array) -> tuple[Array, int]:
    """Return class indices of any integer dtype as int32 words, and how many words make a label.

    64-bit labels stay 64-bit: cut to 32 bits, a label out of range could come into it.
    """
    if t.dtype.itemsize < 4:
        t = t.astype("int32")
    return array_module(t).ascontiguousarray(t).view("int32"), t.dtype.itemsize // 4
