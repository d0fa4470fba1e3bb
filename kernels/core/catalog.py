"""The kernels of the ``.cu`` files, and what each uses on each architecture.

Elementwise kernels, which CuPy generates from one line of ours, are not among them. The figures are in
``resources.json``, which comes with the package, so that they are known without a GPU and without a compiler.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from kernels.core.launch import FOLDER, Kernel

DTYPES = ("float16", "float32", "float64")
"""The dtypes that every kernel is compiled for."""


class Variant(NamedTuple):
    """A unit of compilation: a file for one dtype and one width of indices."""

    file: str
    dtype: str
    wide: bool

    def __str__(self) -> str:
        return f"{self.file} {self.dtype} {self.index_bits}-bit"

    @property
    def index_bits(self) -> int:
        """Return the width of indices: 32 or 64."""
        return 64 if self.wide else 32

    @property
    def code(self) -> str:
        """Return the source as the compiler gets it."""
        return self._kernel.code(self.dtype, self.wide)

    def compile(self) -> None:
        """Compile it for the active GPU, or load it where CuPy's cache on disk has it.

        Raises:
            KernelError: it does not compile, or the compiler is missing.
        """
        self._kernel.compiled(self.dtype, self.wide)

    @property
    def _kernel(self) -> Kernel:
        """Return one of its kernels: CuPy compiles the file for the first and keeps it for the others."""
        return Kernel(self.file, kernels_of(self.file)[0])


@dataclass(frozen=True)
class Resources:
    """The resources of a kernel: registers of a thread by architecture (80 is sm_80), and the most bytes on any
    architecture of a block's shared memory, of a thread's local memory, and of registers spilled to it.

    All are None where the table does not know the current source of the kernel.
    """

    kernel: str
    variant: Variant
    registers: dict[int, int] | None
    shared: int | None
    stack: int | None
    spilled: int | None


TILED = ("convolution.cu", "convolution_weight.cu", "convolution_weight_halo.cu")
"""The files whose kernels are compiled for tiles that the shapes choose: ``kernels.core.tensor_tiles`` has these."""


def files() -> list[str]:
    """Return the names of the files that contain kernels, without those of ``TILED``."""
    return sorted(path.name for path in FOLDER.glob("*.cu") if path.name not in TILED)


@functools.cache
def kernels_of(file: str) -> tuple[str, ...]:
    """Return the names of the kernels in a file, in its order."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    return tuple(re.findall(r'extern "C" __global__ void (\w+)\(', text))


def variants() -> list[Variant]:
    """Return every file, for every dtype and both widths of indices."""
    return [Variant(file, dtype, wide) for file in files() for dtype in DTYPES for wide in (False, True)]


def row_name(kernel: str, variant: Variant) -> str:
    """Return the key of a kernel's row in the table."""
    return f"{kernel} {variant.dtype} {variant.index_bits}-bit"


def read_table() -> dict[str, Any]:
    """Return the table: ``compiler`` is the version of NVRTC that made it, ``options`` its options, ``sources`` the
    ``digest`` of each file, ``kernels`` the rows.
    """
    return json.loads((FOLDER / "resources.json").read_text(encoding="utf-8"))


def digest(file: str) -> str:
    """Return a hash of a file's source without comments, by which the table knows its sources."""
    code = re.sub(r"\s*(//.*|(?s:/\*.*?\*/))", "", Variant(file, "float32", False).code)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def resources(table: dict[str, Any]) -> list[Resources]:
    """Return the resources of each kernel of each variant by the table of ``read_table``, in the order of the files."""
    known = {file for file in files() if table["sources"].get(file) == digest(file)}
    found = []
    for file in files():
        for kernel in kernels_of(file):
            for variant in (variant for variant in variants() if variant.file == file):
                entry = table["kernels"].get(row_name(kernel, variant)) if file in known else None
                if entry is None:
                    found.append(Resources(kernel, variant, None, None, None, None))
                    continue
                registers = {int(architecture): count for architecture, count in entry["registers"].items()}
                found.append(Resources(kernel, variant, registers, entry["shared"], entry["stack"], entry["spilled"]))
    return found
