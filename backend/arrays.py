"""Arrays between host and device, and whose they are.

A library is recognised by the modules already loaded, never by importing one: an array cannot be CuPy's in a
process that has not imported CuPy.
"""

import functools
import sys
from typing import Any

import numpy

from backend import checks
from backend.active import current_device, refuse_lost, xp
from backend.graph_numbers import capture_lock


def array_module(*arrays: Any) -> Any:
    """The library of all the given arrays: ``numpy`` or ``cupy``. Scalars and lists count as neither.

    Returns the active library where no argument is an array.

    Raises:
        TypeError: host and device arrays are mixed; the message shows one of each.
    """
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
    """Return the libraries whose arrays are among types, NumPy first. It is asked hundreds of times a step."""
    cupy = sys.modules.get("cupy")
    known = (numpy,) if cupy is None else (numpy, cupy)
    return tuple(library for library in known if any(issubclass(kind, library.ndarray) for kind in kinds))


def require_active(array: Any, name: str = "array") -> None:
    """Raises unless ``array`` lies on the active device, where results would be made.

    Args:
        name: what the error calls it, where it is no array.

    Raises:
        TypeError: it does not, and the message says where it lies and how to bring it over; or it is no array, or one
            that computes by other rules (see :func:`require_plain`).
    """
    device = current_device()
    own = numpy.ndarray if device.kind == "cpu" else sys.modules["cupy"].ndarray
    if type(array) is own:
        return
    require_plain(array)
    if isinstance(array, own):
        return
    if not is_array(array):
        raise checks.refusal(TypeError, name, "an array", array)
    if isinstance(array, numpy.generic) and device.kind == "cpu":
        return  # what NumPy makes of arrays of no dimensions
    raise TypeError(
        f"{_kind(array)} does not lie on the active device, {device}, which computes with "
        f"{'numpy' if device.kind == 'cpu' else 'cupy'}; bring it there with backend.asarray, or change the device "
        "with backend.use"
    )


def require_plain(array: Any) -> None:
    """Raises if ``array`` is a matrix or a masked array of NumPy.

    ``*`` multiplies matrices, and what a mask hides would be computed with: results would be others, silently.

    Raises:
        TypeError: with the remedy.
    """
    if isinstance(array, numpy.matrix):
        raise TypeError("a numpy.matrix multiplies by other rules than an array: pass numpy.asarray(matrix)")
    if isinstance(array, numpy.ma.MaskedArray):
        raise TypeError("the mask of a masked array would be ignored: pass masked.filled(value)")


def require_arrays(**arrays: Any) -> None:
    """Raises unless each of the arguments, by their names, is an array.

    Raises:
        TypeError: one is none; the message names it.
    """
    for name, array in arrays.items():
        if not is_array(array):
            raise checks.refusal(TypeError, name, "an array", array)


def is_array(value: Any) -> bool:
    """Whether ``value`` is an array (or scalar) of NumPy, or an array of CuPy."""
    return _is_array_type(type(value))  # type: ignore[arg-type]  # as above


@functools.lru_cache(maxsize=1024)
def _is_array_type(kind: Any) -> bool:
    return bool(_libraries(kind)) or issubclass(kind, numpy.generic)


def asarray(array: Any, dtype: Any = None) -> Any:
    """``array`` as an array of the active device, copied only where it must be; dtype kept unless given."""
    if current_device().kind == "cpu":
        return numpy.asarray(asnumpy(array), dtype=dtype)
    return xp.asarray(array, dtype=dtype)


def asnumpy(array: Any) -> numpy.ndarray:
    """``array`` as a NumPy array, copied from the device where it lies there (this waits for the device).

    Examples:
        >>> from backend import asnumpy, xp
        >>> asnumpy(xp.arange(3))
        array([0, 1, 2])
    """
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        refuse_lost()
        return cupy.asnumpy(array)
    return numpy.asarray(array)


def synchronize() -> None:
    """Waits until the active device has done all that it was given. A CPU has, always."""
    if current_device().kind == "cuda":
        with capture_lock:
            xp.cuda.Device().synchronize()


def _kind(array: Any) -> str:
    kind = type(array)
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__} {array.dtype}{list(array.shape)}"
