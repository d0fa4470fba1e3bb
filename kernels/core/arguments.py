"""Convert the arguments of C kernels, by ``ctypes`` without Python code where that can be."""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Sequence
from typing import Any

from kernels.core.signature import Parameter


class _Int:
    """Converts an int that 32 bits can hold: a third of the time of ``ctypes.c_int``."""

    from_param = operator.index  # ctypes passes the number that it returns as a C int


NUMBERS = {"int": _Int, "index": ctypes.c_longlong, "double": ctypes.c_double}
"""How a number of a type in C is converted."""

_Bytes = ctypes.c_char * 0


class _Array:
    """Converts an array: no Python code runs for it."""

    from_param = _Bytes.from_buffer  # refuses what is not contiguous, or may not be written to


class _Read:
    """Converts an array that a function only reads, and that may not be written to."""

    @staticmethod
    def from_param(array: Any) -> Any:
        try:
            return _Bytes.from_buffer(array)
        except TypeError:
            if array is None or not array.flags.c_contiguous:
                raise
            return ctypes.c_void_p(array.__array_interface__["data"][0])


class _Optional:
    """Converts an array that may be None.

    Args:
        array: how to convert one that is not.
    """

    def __init__(self, array: type[_Read | _Array]) -> None:
        self._convert = array.from_param

    def from_param(self, array: Any) -> Any:
        return None if array is None else self._convert(array)


def bind(handle: Any, name: str, parameters: Sequence[Parameter]) -> Any:
    """Return a function of a C library that takes such parameters.

    It converts them without Python code, as far as can be, and refuses arrays that may not be written to. Its
    attribute ``careful`` is the function that takes them where it only reads.
    """
    function, function.careful = handle[name], handle[name]
    for one, reads in ((function, _Array), (function.careful, _Read)):
        one.restype, one.argtypes = None, [_converter(parameter, reads) for parameter in parameters]
    return function


def _converter(parameter: Parameter, reads: type[_Read | _Array]) -> Any:
    if not parameter.is_array:
        return NUMBERS[parameter.kind]
    converter = reads if parameter.is_const else _Array
    return _Optional(converter) if parameter.is_optional else converter
