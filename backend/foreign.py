"""Take arrays of other libraries, such as tensors of PyTorch and arrays of JAX, without a copy.

An array is taken by DLPack (``__dlpack__``), by ``__cuda_array_interface__`` or by ``__array_interface__``: by what it
has, in this order. No other library is imported. The way out needs nothing: results are arrays of NumPy or CuPy,
which other libraries take by the same protocols, as in ``torch.from_dlpack(y)``.
"""

from __future__ import annotations

import functools
import re
import sys
from typing import Any

import numpy

from backend import checks
from backend.active import current_device
from backend.types import Array

_HOST, _CUDA = (1, 3, 11), (2, 13)
"""DLPack's kinds of devices: memory of the host, pinned or not, and memory of CUDA, managed or not."""

_UNKNOWN_DTYPES = re.compile(r"bfloat16|float[468]_|int[24]$")


def from_dlpack(x: Any, name: str = "x") -> Array:
    """Return an array of another library as one of the active device that shares its memory.

    Shape, strides and dtype are kept. An array that may not be written, such as JAX's, may not be written afterwards.
    On a GPU the work that makes the numbers is waited for on the device, not by the host.

    Args:
        x: an array with ``__dlpack__``, ``__cuda_array_interface__`` or ``__array_interface__`` on the active device: a
            tensor of PyTorch, an array of JAX, NumPy or CuPy.
        name: the argument's name in an error.

    Raises:
        TypeError: it is not such an array; it has a dtype that NumPy lacks, such as bfloat16; it requires a gradient,
            or it lies on another device; the message has the remedy.

    Examples:
        >>> import numpy
        >>> import backend
        >>> class Tensor:
        ...     def __init__(self, array):
        ...         self.array = array
        ...     def __dlpack__(self, **options):
        ...         return self.array.__dlpack__(**options)
        ...     def __dlpack_device__(self):
        ...         return self.array.__dlpack_device__()
        >>> numbers = numpy.arange(3.0)
        >>> with backend.use("cpu"):
        ...     y = backend.from_dlpack(Tensor(numbers))
        >>> y[0] = 5
        >>> numbers
        array([5., 1., 2.])
    """
    from backend.arrays import is_array, require_active  # which opens arrays by this module

    array = opened(x, name)
    if not is_array(array):
        raise checks.refusal(TypeError, name, "an array", x)
    if array is not x and isinstance(array, numpy.ndarray) and current_device().kind != "cpu":
        raise _elsewhere(name, x, "the cpu", "copy it there with backend.asarray")
    require_active(array, name)
    return array


def opened(value: Any, name: str = "array") -> Any:
    """Return an array of another library as one of NumPy or CuPy, wherever it lies, without a copy.

    Arrays of NumPy and CuPy, and what is no array, are returned as they are.

    Raises:
        TypeError: as of ``from_dlpack``, but that an array on the host is taken although a GPU is active.
    """
    if _is_known(type(value)):  # type: ignore[arg-type]  # mypy takes types for unhashable
        return value
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        read = _by_dlpack
    elif hasattr(value, "__cuda_array_interface__"):
        read = _by_cuda_interface
    elif hasattr(value, "__array_interface__"):
        read = _by_array_interface
    else:
        return value
    _refuse(value, name)
    try:
        return read(value, name)
    except (BufferError, RuntimeError, ValueError) as error:
        told = f"{name} must be an array whose memory can be shared, got {_kind(value)}: {error}"
        raise TypeError(told) from error


@functools.lru_cache(maxsize=1024)
def _is_known(kind: Any) -> bool:
    """Return whether values of a type are NumPy's or CuPy's, or plain ones of Python."""
    cupy = sys.modules.get("cupy")
    known: tuple[Any, ...] = (numpy.ndarray, numpy.generic, int, float, str, bytes, list, tuple, dict, type(None))
    return issubclass(kind, known if cupy is None else (*known, cupy.ndarray))


def _refuse(value: Any, name: str) -> None:
    """Raise a TypeError for an array whose meaning would be lost."""
    dtype = str(getattr(value, "dtype", ""))
    if _UNKNOWN_DTYPES.search(dtype):
        raise TypeError(f"{name} must be of a dtype of NumPy, got {_kind(value)}: convert it to float32 first")
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"{name} requires a gradient, which xpnet would not pass on: give {name}.detach(), or compute inside a "
            "torch.autograd.Function, as examples/torch_function.py does"
        )
    is_negated = getattr(value, "is_neg", None)  # PyTorch exports such a view without its sign
    if callable(is_negated) and is_negated():
        raise TypeError(f"{name} is a view of a tensor with the opposite sign: give {name}.resolve_neg()")


def _by_dlpack(value: Any, name: str) -> Array:
    kind, index = (int(number) for number in value.__dlpack_device__())
    if kind in _HOST:
        return numpy.from_dlpack(value)
    if kind not in _CUDA:
        place = f"a device that xpnet does not compute on (DLPack's kind {kind})"
        raise _elsewhere(name, value, place, f"give {name}.cpu()")
    return _cupy(value, name, index).from_dlpack(value)


def _by_cuda_interface(value: Any, name: str) -> Array:
    array = _cupy(value, name, None).asarray(value)
    _cupy(value, name, array.device.id)
    return array


def _by_array_interface(value: Any, name: str) -> Array:
    return numpy.asarray(value)


def _cupy(value: Any, name: str, index: int | None) -> Any:
    """Return CuPy if the active device is CUDA's with that index (None: with any); else raise a TypeError."""
    device = current_device()
    if device.kind != "cuda" or index not in (None, device.index):
        place = "cuda" if index is None else f"cuda:{index}"
        raise _elsewhere(name, value, place, f"copy it to the host first, or choose backend.use({place!r})")
    return sys.modules["cupy"]


def _elsewhere(name: str, value: Any, place: str, remedy: str) -> TypeError:
    told = f"{name}, {_kind(value)}, lies on {place}, and the active device is {current_device()}: {remedy}"
    return TypeError(told)


def _kind(value: Any) -> str:
    kind = type(value)
    shape = list(getattr(value, "shape", ()))
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__} {getattr(value, 'dtype', '')}{shape}"
