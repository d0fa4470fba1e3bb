"""Move arrays between host and device, and find the library and the device that an array belongs to.

A library is recognized by the modules already loaded, never by importing one: an array cannot be CuPy's in a process
that has not imported CuPy.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy

from backend import active, checks
from backend.active import current_device, refuse_lost, xp
from backend.foreign import opened
from backend.graph_numbers import capture_lock
from backend.types import Array


def array_module(*arrays: Any) -> Any:
    """Return the library of all the given arrays, ``numpy`` or ``cupy``. Scalars and lists count as neither.

    Where no argument is an array, it is the active library.

    Raises:
        TypeError: host and device arrays are mixed; the message shows one of each.
    """
    if arrays and type(arrays[0]) is numpy.ndarray and "cupy" not in sys.modules:
        return numpy  # there can be no others: the common case on a CPU, hundreds of times a step
    libraries = _libraries(*map(type, arrays))
    if len(libraries) == 1:
        return libraries[0]
    if libraries:
        host, device = (next(array for array in arrays if isinstance(array, each.ndarray)) for each in libraries)
        raise TypeError(
            f"host and device arrays are mixed: {_kind(host)} and {_kind(device)}; move one with "
            "backend.asarray (to the active device) or backend.asnumpy (to the host)"
        )
    return numpy if current_device().kind == "cpu" else sys.modules["cupy"]


@functools.lru_cache(maxsize=1024)
def _libraries(*kinds: Any) -> tuple[Any, ...]:
    """Return the libraries that some of the types are arrays of, NumPy first."""
    cupy = sys.modules.get("cupy")
    known = (numpy,) if cupy is None else (numpy, cupy)
    return tuple(library for library in known if any(issubclass(kind, library.ndarray) for kind in kinds))


def require_same_device(*arrays: Any) -> None:
    """Raise a TypeError where host and device arrays are mixed; the message shows one of each."""
    if "cupy" in sys.modules and len(_libraries(*map(type, arrays))) > 1:
        array_module(*arrays)  # raises


def require_active(array: Any, name: str = "array") -> None:
    """Raise unless ``array`` lies on the active device, where results are made.

    Args:
        name: the argument's name in an error.

    Raises:
        TypeError: ``array`` lies elsewhere, and the message says where and how to bring it over; or it is not an array,
            or one that computes by other rules (see :func:`require_plain`).
    """
    device = active._device or current_device()
    own = numpy.ndarray if device.kind == "cpu" else sys.modules["cupy"].ndarray
    if type(array) is not own:
        _refuse_elsewhere(array, name, own)


def _refuse_elsewhere(array: Any, name: str, own: type) -> None:
    """Raise the errors of ``require_active`` for what is not exactly an array of the type ``own``."""
    require_plain(array)
    if isinstance(array, own):
        return
    if not is_array(array):
        raise checks.refusal(TypeError, name, "an array", array)
    on_cpu = own is numpy.ndarray
    if isinstance(array, numpy.generic) and on_cpu:
        return  # NumPy makes scalars of arrays of no dimensions
    raise TypeError(
        f"{_kind(array)} does not lie on the active device, {current_device()}, which computes with "
        f"{'numpy' if on_cpu else 'cupy'}; bring it there with backend.asarray, or change the device with backend.use"
    )


def require_plain(array: Any) -> None:
    """Raise if ``array`` is a matrix or a masked array of NumPy.

    ``*`` multiplies matrices, and masked numbers would be computed with: results would differ, silently.

    Raises:
        TypeError: with the remedy.
    """
    if isinstance(array, numpy.matrix):
        raise TypeError("a numpy.matrix multiplies by other rules than an array: pass numpy.asarray(matrix)")
    if isinstance(array, numpy.ma.MaskedArray):
        raise TypeError("the mask of a masked array would be ignored: pass masked.filled(value)")


def require_arrays(**arrays: Any) -> None:
    """Raise a TypeError unless each argument is an array; the message names the first that is not."""
    for name, array in arrays.items():
        if not _is_array_type(type(array)):  # type: ignore[arg-type]  # mypy takes types for unhashable
            raise checks.refusal(TypeError, name, "an array", array)


def is_array(value: Any) -> bool:
    """Return whether ``value`` is an array (or scalar) of NumPy, or an array of CuPy."""
    return _is_array_type(type(value))  # type: ignore[arg-type]  # as above


@functools.lru_cache(maxsize=1024)
def _is_array_type(kind: Any) -> bool:
    """Return what ``is_array`` does of values of a type. It is asked hundreds of times a step."""
    return bool(_libraries(kind)) or issubclass(kind, numpy.generic)


def asarray(array: Any, dtype: Any = None) -> Array:
    """Return ``array`` as an array of the active device, copied only where needed; its dtype is kept unless given.

    Arrays of other libraries are taken as ``from_dlpack`` takes them; those on the host are copied to a GPU.
    """
    if current_device().kind == "cpu":
        return numpy.asarray(asnumpy(array), dtype=dtype)
    return xp.asarray(opened(array), dtype=dtype)


def asnumpy(array: Any) -> numpy.ndarray:
    """Return ``array`` as a NumPy array, copied from the device if it lies there (this waits for the device).

    Arrays of other libraries are taken as ``from_dlpack`` takes them.

    Examples:
        >>> from backend import asnumpy, xp
        >>> asnumpy(xp.arange(3))
        array([0, 1, 2])
    """
    array = opened(array)
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        refuse_lost()
        return cupy.asnumpy(array)
    return numpy.asarray(array)


def synchronize() -> None:
    """Wait until the active device has finished its work. On a CPU there is nothing to wait for."""
    if current_device().kind == "cuda":
        with capture_lock:
            xp.cuda.Device().synchronize()


def _kind(array: Any) -> str:
    kind = type(array)
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__} {array.dtype}{list(array.shape)}"
