"""Read the parameters of a CUDA or C kernel from its source.

A comment behind an array is the number of elements that it must have, ``const T *x /* rows * classes */``: factors,
and divisors after "/", from left to right. They are numbers, names of other parameters, members of a ``Geometry``
among the parameters, and of that also ``pixels``, ``windows`` and ``taps``, the products of its heights and widths. An
array of a C kernel may be NULL where the comment begins with ``NULL or``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PRODUCTS = {
    "pixels": ("height", "width"),
    "windows": ("out_height", "out_width"),
    "taps": ("kernel_height", "kernel_width"),
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel.

    Attributes:
        kind: its type in the source without ``const`` and ``*``, such as ``"T"``, ``"int"`` or ``"Geometry"``.
        is_optional: whether an array may be NULL.
        size: the factors (and divisors, after "/") of an array's number of elements; empty where the source has none.
    """

    name: str
    kind: str
    is_array: bool
    is_const: bool
    size: tuple[tuple[str, str], ...] = ()
    is_optional: bool = False


def read_parameters(
    source: str, kernel: str, head: str = r'extern "C" __global__ void {}'
) -> tuple[Parameter, ...] | None:
    """Return the parameters of a kernel in the order of its signature; None where the source has no such kernel.

    Args:
        head: what stands before them, a regular expression with ``{}`` for the kernel's name.
    """
    found = re.search(head.format(kernel) + r"\(([^)]*)\)", source)
    return None if found is None else tuple(_parse(text) for text in found[1].split(","))


def _parse(text: str) -> Parameter:
    declared, _, size = text.partition("/*")
    optional, size = size.lstrip().startswith("NULL or"), size.replace("NULL or", "")
    words = declared.replace("*", " * ").replace("__restrict__", "").split()
    kind = " ".join(word for word in words[:-1] if word not in ("const", "*"))
    factors = tuple(re.findall(r"([*/]?)\s*(\w+)", size))
    return Parameter(words[-1], kind, "*" in words, words[0] == "const", factors, optional)


def element_counts(parameters: tuple[Parameter, ...], arguments: Mapping[str, Any]) -> dict[str, int]:
    """Return how many elements each array must have, of those whose size the source gives.

    Args:
        arguments: by name; numbers, and for a ``Geometry`` its struct.
    """
    numbers = dict(arguments)
    for parameter in parameters:
        if parameter.kind == "Geometry":
            struct = arguments[parameter.name]
            numbers |= {name: int(struct[name]) for name in struct.dtype.names}
            numbers |= {name: numbers[first] * numbers[second] for name, (first, second) in _PRODUCTS.items()}
    counts = {}
    for parameter in parameters:
        if parameter.size:
            count = 1
            for operator, word in parameter.size:
                factor = int(word) if word.isdigit() else numbers[word]
                count = count // factor if operator == "/" else count * factor
            counts[parameter.name] = count
    return counts
