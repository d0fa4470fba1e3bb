"""The CUDA kernels as they stand in the ``.cu`` files, found by their declarations."""

import importlib.resources
import re
from typing import NamedTuple

from kernels.launch import Kernel

DTYPES = ("float16", "float32", "float64")
PRELUDE = "prelude.cu"


class Variant(NamedTuple):
    """What is compiled at once: a file for a type of numbers and a width of indices."""

    file: str
    dtype: str
    wide: bool

    def __str__(self):
        return f"{self.file} {self.dtype} {64 if self.wide else 32}-bit"

    @property
    def code(self):
        return Kernel(self.file, kernels_of(self.file)[0]).code(self.dtype, self.wide)


def files():
    """The names of the files that hold kernels."""
    names = (entry.name for entry in importlib.resources.files("kernels").iterdir())
    return sorted(name for name in names if name.endswith(".cu") and name != PRELUDE)


def kernels_of(file):
    """The names of the kernels in a file, in its order."""
    text = (importlib.resources.files("kernels") / file).read_text()
    return re.findall(r'extern "C" __global__ void (\w+)\(', text)


def variants():
    """Every file, for every type of numbers and both widths of indices."""
    return [Variant(file, dtype, wide) for file in files() for dtype in DTYPES for wide in (False, True)]
