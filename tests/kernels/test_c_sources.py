"""The C files as they are written: their heads, their sizes, and Python's calls of every function."""

import importlib
import itertools
import pkgutil
import re

import numpy as np
import pytest

import kernels
from kernels.core import arguments, build_native, native
from kernels.core.geometry import STRUCT
from kernels.core.native import Function
from kernels.core.signature import element_counts
from tests.conftest import require_c_kernels

SOURCES = {path.name: path.read_text(encoding="utf-8") for path in build_native.sources()}
SIZED_ELSEWHERE = {("convolution.c", "filters"): "blocks of filters, whose number the plan of a convolution has"}
"""Arrays whose number of elements is no product of the function's parameters."""

SAYS = {
    "how data lie in registers": r"\b([Vv]ectors?|registers?)\b",
    "the order of sums": r"[Oo]rder of (a sum|sums|products)|[Nn]o sums|ascending order|in a tree|bit for bit|Bits: ",
    "the least bytes to move": r"\bLeast bytes\b[^:.]*: \w",
}
"""What the comment at the head of a file has words for, behind what the file computes."""


def functions():
    """Return the functions of C files that Python calls, by file and name."""
    found = {}
    for module in pkgutil.walk_packages(kernels.__path__, "kernels."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Function):
                found[value.file, value.name] = value
    return found


FUNCTIONS = functions()


def written():
    """Return the functions of the C files, by file and name."""
    return {(file, name) for file, source in SOURCES.items() for name in re.findall(r"KERNEL\((\w+)\)\(", source)}


def test_python_calls_every_function_of_the_c_files():
    assert written() == set(FUNCTIONS)
    assert len(FUNCTIONS) >= 10


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=lambda function: function.name)
def test_parameters_are_of_known_types_and_arrays_have_sizes(function):
    """The checks of a call hold an array to the size that the source gives, by the names of other parameters."""
    numbers = {}
    for parameter in function.parameters:
        if parameter.kind == "Geometry":
            assert parameter.is_array
            numbers[parameter.name] = np.ones((), STRUCT)
        elif parameter.is_array:
            assert parameter.kind in ("T", "A", *native._DTYPES)
            assert parameter.size or (function.file, parameter.name) in SIZED_ELSEWHERE, parameter.name
        else:
            assert parameter.kind in arguments.NUMBERS
            numbers[parameter.name] = 1

    counts = element_counts(function.parameters, numbers)
    assert all(isinstance(count, int) for count in counts.values())


@pytest.mark.parametrize("file", SOURCES)
def test_a_file_opens_with_what_it_computes_and_is_short(file):
    lines = SOURCES[file].splitlines()
    assert lines[0].startswith("// ")
    comment = " ".join(line[2:].strip() for line in itertools.takewhile(lambda line: line.startswith("//"), lines))
    assert [what for what, words in SAYS.items() if not re.search(words, comment)] == []
    assert len(lines) <= 260
    assert '#include "core/' in SOURCES[file]
    assert not re.findall(r"#include <", SOURCES[file])  # a kernel calls no library


def test_each_function_is_in_the_library_for_every_dtype_and_level():
    require_c_kernels()
    handle = native.library().handle
    levels = [level.name for level in build_native.this_target().levels]
    for _, name in FUNCTIONS:
        for kind in build_native.TYPES:
            for level in levels:
                assert hasattr(handle, f"{name}_{kind}_{level}")
