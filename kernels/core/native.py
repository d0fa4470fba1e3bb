"""Call the C kernels of the ``.c`` files, which do a CPU's work where they were built (``build_native.py``).

A kernel is a function of one thread over a range of images or rows; ``share`` gives pieces of it to the CPU's threads.
Parameters are read from the function's head in its source (``kernels.core.signature``); an array must be contiguous.
``checked`` also holds dtypes and numbers of elements against the source, as the tests do at every call: a launch on a
GPU does so once for each plan, and here a call costs no more than checking it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from backend import threads, tuning, workspace
from backend.types import Array
from kernels.core import arguments, pool
from kernels.core.signature import Parameter, element_counts, read_parameters

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


PIECES = 4
"""Ranges of a kernel's work for each thread: one that is held up takes fewer."""

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
        handle = _opened(LIBRARY)
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


def _opened(path: Path) -> Any:
    handle = ctypes.CDLL(str(path))
    handle.xpnet_help.argtypes, handle.xpnet_help.restype = [ctypes.c_longlong], None
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=pool.forget)
        os.register_at_fork(after_in_child=handle.xpnet_forget)
    return handle


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


def sharers(count: int, item_bytes: int) -> int:
    """Return how many of the CPU's threads share ``count`` items of a C kernel: one, where they are little work.

    Args:
        item_bytes: read and written for one item.
    """
    most = threads.limit()
    if most == 1 or count * item_bytes < tuning.WORTH_CUTTING or threads.is_sharing():
        return 1
    return min(count, most, count * item_bytes // tuning.WORTH_CUTTING + 1)


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
        self._shared: dict[Any, Any] = {}

    def __call__(self, dtype: Any, *given: Any) -> None:
        """Call the function of a dtype with arrays, ``Geometry`` structs as arrays, and numbers.

        Raises:
            ctypes.ArgumentError: an argument has another type than the parameter, or an array is not contiguous, or may
                not be written to.
            TypeError: there is no such function for the dtype.
            TypeError, ValueError: inside ``checked``; the message names the argument.
        """
        function = self._loaded.get(dtype) or self._load(numpy.dtype(dtype))
        if _checked:
            self._check(numpy.dtype(dtype), given)
        try:
            function(*given)
        except ctypes.ArgumentError:
            function.careful(*given)

    def share(self, dtype: Any, count: int, item_bytes: int, *given: Any, each: int = PIECES) -> bool:
        """Call the function for ranges that make up ``count`` items, shared among the CPU's threads.

        Return whether it was one range. No bit of a result may depend on where a range ends: sums over several items
        go by ``kernels.core.tiling``.

        Args:
            item_bytes: read and written for one item.
            given: arguments before the last two of the function, the range's first item and the one behind it, and
                without the number of a thread, ``thread``, in front of these.
            each: ranges for each thread.

        Raises:
            ctypes.ArgumentError, TypeError, ValueError: as for a call.
        """
        function = self._shared.get(dtype) or self._load_shared(numpy.dtype(dtype))
        if _checked:
            numbered = (0,) * (self.parameters[-3].name == "thread")
            self._check(numpy.dtype(dtype), (*given, *numbered, 0, count))
        pieces = team = 1
        if count * item_bytes >= tuning.WORTH_CUTTING and (team := sharers(count, item_bytes)) > 1:
            pieces = min(count, each * team, count * item_bytes // tuning.WORTH_CUTTING + 1)
            pool.gather(team - 1, library().handle)
        try:
            function(*given, count, pieces, team)
        except ctypes.ArgumentError:
            function.careful(*given, count, pieces, team)
        return pieces == 1

    def each(self, *given: Any) -> Array:
        """Return a new array of numbers that the function computes from those of arrays, one by one, and from numbers.

        Arrays have one shape. Those that are not of bool have one dtype, or are brought to the one that NumPy would.
        """
        arrays = [argument for argument in given if isinstance(argument, numpy.ndarray)]
        dtypes = {array.dtype for array in arrays if array.dtype != bool}
        dtype = dtypes.pop() if len(dtypes) == 1 else numpy.result_type(*dtypes)
        converted = [
            numpy.ascontiguousarray(argument, None if argument.dtype == bool else dtype)
            if isinstance(argument, numpy.ndarray)
            else argument
            for argument in given
        ]
        out = workspace.empty(arrays[0].shape, dtype)
        item_bytes = (len(arrays) + 1) * out.itemsize
        self.share(dtype, out.size, item_bytes, *converted, out, out.size)
        return out

    def _load(self, dtype: numpy.dtype) -> Any:
        self._loaded[dtype] = function = self._find(dtype, self.name, self.parameters)
        return function

    def _load_shared(self, dtype: numpy.dtype) -> Any:
        own = self.parameters[: -3 if self.parameters[-3].name == "thread" else -2]
        numbers = (Parameter(name, "index", False, False) for name in ("items", "pieces", "team"))
        self._shared[dtype] = function = self._find(dtype, f"{self.name}_shared", (*own, *numbers))
        return function

    def _find(self, dtype: numpy.dtype, name: str, parameters: Sequence[Parameter]) -> Any:
        if dtype not in _FLOATING:
            raise TypeError(f"{self.name} in {self.file} must compute in {', '.join(_NAMES)}, got {dtype}")
        found = library()
        return arguments.bind(found.handle, f"{name}_{_NAMES[dtype.name]}_{found.level}", parameters)

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters, read from the source.

        Raises:
            ValueError: the source has no such function, or a parameter of another type.
        """
        found = read_parameters((FOLDER / self.file).read_text("utf-8"), self.name, r"KERNEL\({}\)")
        if found is None:
            raise ValueError(f"{self.file} has no function {self.name}")
        return found

    def _check(self, dtype: numpy.dtype, given: tuple[Any, ...]) -> None:
        where = f"{self.name} in {self.file}"
        if len(given) != len(self.parameters):
            raise TypeError(f"{where} takes {len(self.parameters)} arguments, got {len(given)}")
        named = {p.name: argument for p, argument in zip(self.parameters, given, strict=True)}
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
