"""The kernels of the ``.cu`` files: what each uses on each architecture, and whether it is compiled already.

Elementwise kernels, which CuPy makes of a line of ours, are not among them. What a kernel uses stands in
``resources.json``, which comes with the package, so that it is known without a GPU and without a compiler. What is
compiled is for CuPy's cache of compiled kernels to say, on disk.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from kernels.core.launch import FOLDER, Kernel, KernelError

DTYPES = ("float16", "float32", "float64")
"""The numbers that every kernel is made for."""


class Variant(NamedTuple):
    """What is compiled at once: a file for a dtype of numbers and a width of indices."""

    file: str
    dtype: str
    wide: bool

    def __str__(self) -> str:
        return f"{self.file} {self.dtype} {self.index_bits}-bit"

    @property
    def index_bits(self) -> int:
        """The width of indices: 32 or 64."""
        return 64 if self.wide else 32

    @property
    def code(self) -> str:
        """The source as the compiler gets it."""
        return self._kernel.code(self.dtype, self.wide)

    def compile(self) -> None:
        """Compiles it for the active GPU, or loads it where it was compiled before.

        Raises:
            KernelError: it does not compile, or the compiler is missing.
        """
        self._kernel.compiled(self.dtype, self.wide)

    @property
    def _kernel(self) -> Kernel:
        """One of its kernels: CuPy compiles the file for the first that it is asked for and keeps it for the others."""
        return Kernel(self.file, kernels_of(self.file)[0])


@dataclass(frozen=True)
class Resources:
    """What a kernel of a variant uses: registers of a thread by architecture (80 is sm_80), and the most bytes on any
    of shared memory of a block, of local memory of a thread, and of registers spilled to it.

    All are None where the table does not know the kernel as its source stands.
    """

    kernel: str
    variant: Variant
    registers: dict[int, int] | None
    shared: int | None
    stack: int | None
    spilled: int | None


def files() -> list[str]:
    """The names of the files that hold kernels."""
    return sorted(path.name for path in FOLDER.glob("*.cu"))


@functools.cache
def kernels_of(file: str) -> tuple[str, ...]:
    """The names of the kernels in a file, in its order."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    return tuple(re.findall(r'extern "C" __global__ void (\w+)\(', text))


def variants() -> list[Variant]:
    """Every file, for every dtype and both widths of indices."""
    return [Variant(file, dtype, wide) for file in files() for dtype in DTYPES for wide in (False, True)]


def row_name(kernel: str, variant: Variant) -> str:
    """The key of a kernel's row in the table."""
    return f"{kernel} {variant.dtype} {variant.index_bits}-bit"


def read_table() -> dict[str, Any]:
    """The table: ``compiler`` is the version of NVRTC that it is from, ``options`` what that was given, ``sources``
    the ``digest`` of each file, ``kernels`` the rows."""
    return json.loads((FOLDER / "resources.json").read_text(encoding="utf-8"))


def digest(file: str) -> str:
    """Of a file's text and what is compiled with it, but for comments: tells whether the table is about this text."""
    code = re.sub(r"\s*(//.*|(?s:/\*.*?\*/))", "", Variant(file, "float32", False).code)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def resources(table: dict[str, Any]) -> list[Resources]:
    """What each kernel of each variant uses, by the table of ``read_table``; sorted by file, as it stands there."""
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


class _ToldError(Exception):
    """Ends a compilation where CuPy has asked its cache; ``found`` is the answer."""

    def __init__(self, found: bool) -> None:
        super().__init__(found)
        self.found = found


class _Asking:
    """Stands in for CuPy's cache: tells whether that holds what is asked for, and ends the compilation there."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def load(self, name: str) -> bytes:
        raise _ToldError(self._cache.load(name) is not None)


def cached(asked: Iterable[Variant]) -> set[Variant]:
    """Those that CuPy's cache on disk holds for the active GPU, its driver's compiler and this CuPy: the next process
    loads them and compiles nothing.

    CuPy itself is asked, by starting to compile each with a cache that tells and ends it there: names of files in
    CuPy's folder are its own affair. Nothing is compiled, and nothing loaded onto the GPU. Not for use while another
    thread compiles.

    Raises:
        KernelError: CuPy's cache cannot be asked, or keeps nothing on disk.
    """
    import cupy
    from cupy.cuda import compiler

    try:
        cache, replace = compiler._kernel_cache_backend, compiler._set_kernel_cache_backend
    except AttributeError as error:
        raise KernelError(f"CuPy {cupy.__version__} does not let its cache of kernels be asked") from error
    cupy.clear_memo()  # for what this process has compiled before, CuPy would not ask its cache
    found = set()
    replace(_Asking(cache))
    try:
        for variant in asked:
            try:
                variant.compile()
            except _ToldError as told:
                if told.found:
                    found.add(variant)
            else:
                raise KernelError("CuPy does not ask its cache on disk for kernels: is CUPY_CACHE_IN_MEMORY set?")
    finally:
        replace(cache)
    return found
