"""Channels-last memory behind NCHW shapes.

An activation has the shape (N, C, H, W) and is stored as (N, H, W, C): ``to_nhwc(x)`` is that memory, and
``as_nchw(array)`` its NCHW view. Over it every 4-D operation is one on a matrix (N·H·W, C), pixels by channels.

Examples:
    >>> import numpy
    >>> from kernels.core.layout import to_nhwc
    >>> to_nhwc(numpy.zeros((1, 3, 28, 28))).shape
    (1, 28, 28, 3)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy

from backend import array_module, profiling, require_active, require_arrays, require_same_device, workspace
from backend.types import Array


def to_nhwc(x: Array) -> Array:
    """Return the (N, H, W, C) array behind ``x`` (N, C, H, W), C-contiguous.

    It is a view of ``x`` where its memory is channels-last, a copy otherwise.
    """
    nhwc = x.transpose(0, 2, 3, 1)
    if nhwc.flags.c_contiguous:
        return nhwc
    copy = workspace.empty(nhwc.shape, nhwc.dtype)
    copy[...] = nhwc
    return copy


def target(array: Array, dtype: numpy.dtype) -> Array:
    """Return ``array`` if a kernel of a dtype can write to it, else scratch memory of its shape."""
    return array if array.dtype == dtype and array.flags.c_contiguous else workspace.empty(array.shape, dtype)


def as_nchw(nhwc: Array) -> Array:
    """Return the (N, C, H, W) view of an (N, H, W, C) array."""
    return nhwc.transpose(0, 3, 1, 2)


def channels_last(x: Array) -> Array:
    """Return ``x`` (N, C, H, W) with channels-last memory: itself if it has that, a copy otherwise."""
    return as_nchw(to_nhwc(x))


@profiling.operation
def copy_channels_last(x: Array) -> Array:
    """Return a copy of ``x`` (N, C, H, W) with channels-last memory."""
    return as_nchw(array_module(x).array(x.transpose(0, 2, 3, 1), order="C"))


@profiling.operation
def joined(a: Array, b: Array) -> Array:
    """Return the channels of images ``a`` and then of ``b`` (N, C, H, W), with channels-last memory.

    Other arrays are joined along their last axis. The shapes differ in that axis alone; of two dtypes it is the wider.
    """
    dtype = numpy.promote_types(a.dtype, b.dtype)
    axis = channel_axis(a)
    shape = (*a.shape[:axis], a.shape[axis] + b.shape[axis], *a.shape[axis + 1 :])
    if a.ndim == 4:
        n, c, h, w = shape
        y = as_nchw(workspace.empty((n, h, w, c), dtype))
    else:
        y = workspace.empty(shape, dtype)
    first, rest = parted(y, a.shape[axis])
    first[...], rest[...] = a, b
    return y


def parted(array: Array, channels: int) -> tuple[Array, Array]:
    """Return the first channels, or numbers of the last axis, and the others: views."""
    before = (slice(None),) * channel_axis(array)
    return array[(*before, slice(channels))], array[(*before, slice(channels, None))]


def channel_axis(array: Array) -> int:
    """Return the axis of the channels of images (N, C, H, W), else the last one."""
    return 1 if array.ndim == 4 else array.ndim - 1


def is_channels_last(x: Array) -> bool:
    """Return whether the memory behind ``x`` (N, C, H, W) is contiguous in the order (N, H, W, C)."""
    return bool(x.transpose(0, 2, 3, 1).flags.c_contiguous)


def _as_vector(x: Array) -> Array:
    return x.reshape(1)


def _as_scalar(x: Array) -> Array:
    return x.reshape(())


def elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of same-shaped arrays work on the memory of 4-D ones and return NCHW views of it.

    A ufunc of CuPy would return NCHW-contiguous memory for a channels-last view, and mixed layouts are slow on
    either library. All array arguments (annotated as ``Array``) must have one shape and come from one library; other
    arguments are passed on.

    Arrays of no dimensions are computed as arrays of one: NumPy makes scalars of them, which cannot be written to.
    """
    needed = function.__code__.co_argcount - len(function.__defaults__ or ())
    names = [
        name
        for name in function.__code__.co_varnames[:needed]
        if function.__annotations__.get(name, "Array") in ("Array", Array)
    ]

    @profiling.operation
    @functools.wraps(function)
    def on_storage(*given: Any, **options: Any) -> Any:
        arrays, others = given[: len(names)], given[len(names) :]
        if len(arrays) < len(names):  # some are given by name
            arrays += tuple(options.pop(name) for name in names[len(arrays) :] if name in options)
            if len(arrays) < len(names):
                raise TypeError(f"{function.__name__} needs {', '.join(names)}, got {len(arrays)} of them")
        require_same_device(*arrays)
        first = arrays[0]
        require_active(first, names[0])
        for name, other in zip(names[1:], arrays[1:], strict=True):
            if getattr(other, "shape", None) != first.shape:
                require_arrays(**{name: other})
                raise ValueError(f"{function.__name__} needs one shape, got {first.shape} and {other.shape} of {name}")
        if first.ndim not in (0, 4):
            return function(*arrays, *others, **options)
        into, back = (to_nhwc, as_nchw) if first.ndim else (_as_vector, _as_scalar)
        result = function(*map(into, arrays), *others, **options)
        return tuple(map(back, result)) if isinstance(result, tuple) else back(result)

    return on_storage
