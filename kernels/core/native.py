"""Call the C kernels of the ``.c`` files, which do a CPU's work where they were built (``build_native.py``).

A kernel is a function of one thread over a range of images or rows; ``share`` gives ranges to the CPU's threads. The
parameters are read from the function's head in its source (``kernels.core.signature``); an array must be contiguous.
``checked`` also holds dtypes and numbers of elements against the source, as the tests do at every call: a launch on a
GPU does so once for each plan, and here a call costs no more than checking it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import operator
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from backend import threads, tuning, workspace
from backend.types import Array
from kernels.core.signature import Parameter, element_counts, read_parameters
from kernels.core.tiling import ranges

FOLDER = Path(__file__).parent.parent
LIBRARY = Path(__file__).parent / "native.lib"

_NAMES = {"float16": "half", "float32": "float", "float64": "double"}
_FLOATING = frozenset(numpy.dtype(name) for name in _NAMES)
_LEVELS = {3: "v3", 4: "v4", 8: "arm64"}
_DTYPES = {
    "int": "int32",
    "index": "int64",
    "unsigned": "uint32",
    "unsigned char": "uint8",
    "float": "float32",
    "double": "float64",
}


class _Int:
    """Converts an int that 32 bits can hold: a third of the time of ``ctypes.c_int``."""

    from_param = operator.index  # ctypes passes the number that it returns as a C int


_NUMBERS = {"int": _Int, "index": ctypes.c_longlong, "double": ctypes.c_double}

_asked = os.environ.get("XPNET_NATIVE", "") or "1"
_on = _asked != "0"
_checked = False


class Library(NamedTuple):
    """The C library, or why there is none.

    Attributes:
        level: of processor, ``"v4"``.
        reason: in words, empty where there is a library.
        remedy: a command, where there is one.
    """

    handle: Any
    level: str = ""
    reason: str = ""
    remedy: str = ""

    @property
    def processor(self) -> str:
        """Return the usual name of the level, ``"x86-64-v4"``."""
        return f"x86-64-{self.level}" if self.level.startswith("v") else self.level


@functools.cache
def library() -> Library:
    """Load the C library, once: made from the sources beside it, for this processor.

    Raises:
        ValueError: ``XPNET_NATIVE`` is neither 0 nor 1 nor a level.
    """
    if _asked not in ("0", "1", *_LEVELS.values()):
        raise ValueError(f"XPNET_NATIVE is 0, 1 or one of {', '.join(_LEVELS.values())}, not {_asked!r}")
    from kernels.core import build_native  # only now: it costs time

    if not LIBRARY.exists():
        if build_native.this_target() is None:
            return Library(None, reason="there are no C kernels for this system")
        return Library(None, reason="the C kernels were not built", remedy=build_native.REMEDY)
    try:
        handle = ctypes.CDLL(str(LIBRARY))
        level = _LEVELS.get(handle.xpnet_level())
        sources = (ctypes.c_char * 64).in_dll(handle, "xpnet_sources").value.decode()
    except (OSError, AttributeError, ValueError) as error:
        return Library(None, reason=f"the C kernels cannot be loaded: {error}", remedy=build_native.REMEDY)
    if sources != build_native.digest():  # a function may have other parameters than its source says
        return Library(None, reason="the C kernels were built from other sources", remedy=build_native.REMEDY)
    if level is None:
        return Library(None, reason="this processor is older than x86-64-v3, for which the C kernels are compiled")
    if _asked not in ("0", "1", level) and (_asked, level) != ("v3", "v4"):
        return Library(None, reason=f"XPNET_NATIVE={_asked}, and this processor is of level {level}")
    return Library(handle, level if _asked in ("0", "1") else _asked)


def refusal() -> str:
    """Return why NumPy computes in place of the C kernels, or an empty text where they do."""
    return library().reason if _on else "XPNET_NATIVE=0"


def available() -> bool:
    """Return whether the C kernels compute."""
    return _on and library().handle is not None


def computes(dtype: Any) -> bool:
    """Return whether the C kernels compute, and have this dtype: a floating one in the processor's order of bytes."""
    return dtype in _FLOATING and available()


@contextlib.contextmanager
def enabled(on: bool) -> Iterator[None]:
    """Compute by the C kernels inside a ``with``, or by NumPy. It holds for the process, not for the thread.

    Raises:
        RuntimeError: there is no library.
    """
    global _on
    if on and library().handle is None:
        raise RuntimeError(library().reason)
    before, _on = _on, on
    try:
        yield
    finally:
        _on = before


@contextlib.contextmanager
def checked(on: bool = True) -> Iterator[None]:
    """Hold every call inside a ``with`` against the source, or not: dtypes, and how many elements an array has."""
    global _checked
    before, _checked = _checked, on
    try:
        yield
    finally:
        _checked = before


def share(count: int, item_bytes: int, call: Callable[[int, int], Any]) -> bool:
    """Call ``call(first, last)`` for ranges that make up ``count`` items, shared among the CPU's threads.

    Return whether it was one range. No bit of a result may depend on where a range ends: sums over several items go by
    ``kernels.core.tiling``.

    Args:
        item_bytes: read and written for one item.
    """
    pieces = min(count, threads.limit(), count * item_bytes // tuning.WORTH_CUTTING + 1)
    if pieces <= 1:
        call(0, count)
    else:
        threads.spread(lambda cut: call(*cut), ranges(count, pieces))
    return pieces <= 1


class Function:
    """A function of a ``.c`` file.

    Args:
        file: name of the file.
        name: of the function, as in ``KERNEL(name)``.
    """

    def __init__(self, file: str, name: str) -> None:
        self.file = file
        self.name = name
        self._loaded: dict[Any, Any] = {}

    def __call__(self, dtype: Any, *arguments: Any) -> None:
        """Call the function of a dtype with arrays, ``Geometry`` structs as arrays, and numbers.

        Raises:
            ctypes.ArgumentError: an argument has another type than the parameter, or an array is not contiguous, or may
                not be written to.
            TypeError: there is no such function for the dtype.
            TypeError, ValueError: inside ``checked``; the message names the argument.
        """
        function = self._loaded.get(dtype) or self._load(numpy.dtype(dtype))
        if _checked:
            self._check(numpy.dtype(dtype), arguments)
        function(*arguments)

    def each(self, *arguments: Any) -> Array:
        """Return a new array of numbers that the function computes from those of arrays, one by one, and from numbers.

        Arrays have one shape. Those that are not of bool have one dtype, or are brought to the one that NumPy would.
        """
        arrays = [argument for argument in arguments if isinstance(argument, numpy.ndarray)]
        dtypes = {array.dtype for array in arrays if array.dtype != bool}
        dtype = dtypes.pop() if len(dtypes) == 1 else numpy.result_type(*dtypes)
        given = [
            numpy.ascontiguousarray(argument, None if argument.dtype == bool else dtype)
            if isinstance(argument, numpy.ndarray)
            else argument
            for argument in arguments
        ]
        out = workspace.empty(arrays[0].shape, dtype)
        item_bytes = (len(arrays) + 1) * out.itemsize
        share(out.size, item_bytes, lambda first, last: self(dtype, *given, out, out.size, first, last))
        return out

    def _load(self, dtype: numpy.dtype) -> Any:
        if dtype not in _FLOATING:
            raise TypeError(f"{self.name} in {self.file} must compute in {', '.join(_NAMES)}, got {dtype}")
        found = library()
        function = found.handle[f"{self.name}_{_NAMES[dtype.name]}_{found.level}"]
        function.restype = None
        function.argtypes = [_converter(parameter) for parameter in self.parameters]
        self._loaded[dtype] = function
        return function

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters, read from the source.

        Raises:
            ValueError: the source has no such function, or a parameter of another type.
        """
        found = read_parameters((FOLDER / self.file).read_text(), self.name, r"KERNEL\({}\)")
        if found is None:
            raise ValueError(f"{self.file} has no function {self.name}")
        return found

    def _check(self, dtype: numpy.dtype, arguments: tuple[Any, ...]) -> None:
        where = f"{self.name} in {self.file}"
        if len(arguments) != len(self.parameters):
            raise TypeError(f"{where} takes {len(self.parameters)} arguments, got {len(arguments)}")
        named = {p.name: argument for p, argument in zip(self.parameters, arguments, strict=True)}
        for parameter in self.parameters:
            value, name = named[parameter.name], f"{parameter.name} of {where}"
            if value is None and parameter.is_optional:
                continue
            if parameter.is_array and not isinstance(value, numpy.ndarray):
                raise TypeError(f"{name} must be an array, got {type(value).__name__}")
            if parameter.kind == "Geometry":
                named[parameter.name] = value[0]
            elif parameter.is_array:
                wide = "float32" if dtype == "float16" else dtype
                wanted = {"T": dtype, "A": wide}.get(parameter.kind) or _DTYPES[parameter.kind]
                if value.dtype != wanted and not (wanted == "uint8" and value.dtype == bool):
                    raise TypeError(f"{name} must be {wanted}, got {value.dtype}")
            elif parameter.kind == "int" and not -(1 << 31) <= value < 1 << 31:
                raise ValueError(f"{name} must fit into 32 bits, got {value}")
        for array, count in element_counts(self.parameters, named).items():
            if named[array] is not None and named[array].size != count:
                raise ValueError(f"{array} of {where} must have {count} elements, got {named[array].size}")


_Bytes = ctypes.c_char * 0


class _Written:
    """Converts an array that a function writes to: no Python code runs for it."""

    from_param = _Bytes.from_buffer  # refuses what is not contiguous, or may not be written to


class _Read:
    """Converts an array that a function only reads."""

    @staticmethod
    def from_param(array: Any) -> Any:
        try:
            return _Bytes.from_buffer(array)
        except TypeError:
            if array is None or not array.flags.c_contiguous:
                raise
            return ctypes.c_void_p(array.__array_interface__["data"][0])  # it may not be written to


class _Optional:
    """Converts an array that may be None.

    Args:
        array: how to convert one that is not.
    """

    def __init__(self, array: type[_Read | _Written]) -> None:
        self._convert = array.from_param

    def from_param(self, array: Any) -> Any:
        return None if array is None else self._convert(array)


def _converter(parameter: Parameter) -> Any:
    if not parameter.is_array:
        return _NUMBERS[parameter.kind]
    converter = _Read if parameter.is_const else _Written
    return _Optional(converter) if parameter.is_optional else converter
