"""CUDA kernels: declared once, in their ``.cu`` file, checked at every launch, compiled at the first.

CuPy checks nothing about a RawKernel's arguments: strides are ignored, a float64 array passes for ``float*``, and a
Python float given for a ``float`` parameter arrives as 0. So the parameters are read from the kernel's signature in
its source, and every argument is held against them: also how many elements an array has, where a comment behind it says
so, ``const T *x /* rows * classes */``, by the names of other parameters and from left to right.

CuPy adds ``-ftz=true`` to every compilation, after any option of ours: float32 numbers below 1.2e-38 count as 0 in a
kernel, and come out as 0. The comments in the ``.cu`` files that promise the bits of the CPU mean all others.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from backend import current_device, profiling
from kernels.gemm import accumulator
from kernels.window import Window

BLOCK = 256
"""Threads in a block."""

_MOST_THREADS = 1024  # in a block, on every architecture
_MOST_BLOCKS = 1 << 16  # the kernels' loops stride over the grid: more blocks would only be scheduled later
_NARROW = (1 << 31) - _MOST_BLOCKS * _MOST_THREADS  # past this an int32 loop counter could overflow in its last step
_block = BLOCK

_CTYPES = {"float16": "half16", "float32": "float", "float64": "double"}
_DTYPES = {"int": "int32", "unsigned int": "uint32", "unsigned char": "uint8", "float": "float32", "double": "float64"}


def block_size() -> int:
    """Threads in a block of what is launched now: :data:`BLOCK`, except inside :func:`blocks_of`."""
    return _block


@contextlib.contextmanager
def blocks_of(threads: int) -> Iterator[None]:
    """Launches kernels in blocks of so many threads, to measure what they take in others than :data:`BLOCK`.

    Sums to which several threads of a block contribute are added in another order: their last bits may differ. All
    else is the same, bit for bit. It holds for the process, not for the thread.

    Raises:
        ValueError: ``threads`` is no power of two from 32 to 1024. A kernel that cannot have so many raises one when
            it is launched.
    """
    global _block
    if threads not in (1 << power for power in range(5, 11)):
        raise ValueError(f"a block has 32, 64, 128, 256, 512 or 1024 threads, not {threads}")
    before, _block = _block, threads
    try:
        yield
    finally:
        _block = before


class KernelError(RuntimeError):
    """A kernel does not compile or cannot be built here; the message has the compiler's words."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel: ``kind`` is its type in the source without ``const`` and ``*``; ``size`` are the factors
    (and divisors, after "/") that make up an array's number of elements, empty where the source does not say."""

    name: str
    kind: str
    is_array: bool
    is_const: bool
    size: tuple[tuple[str, str], ...] = ()


class Kernel:
    """A kernel of a ``.cu`` file in this folder.

    The source may use the macros ``T`` (the numbers' type), ``ACC`` (in which they are summed: float for half16),
    ``INDEX`` (int, or long long where an array has more than about 2³¹ elements) and what ``prelude.cu`` defines.

    Args:
        file: its name, such as ``"col2im.cu"``.
        name: the function's.

    Raises:
        ValueError: the file has no such kernel.
    """

    def __init__(self, file: str, name: str) -> None:
        self.file = file
        self.name = name
        self._range = profiling.Range(name, kind="kernel")

    @functools.cached_property
    def source(self) -> str:
        """The text of the file."""
        return (importlib.resources.files("kernels") / self.file).read_text()

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters as the source declares them."""
        found = re.search(rf'extern "C" __global__ void {self.name}\(([^)]*)\)', self.source)
        if found is None:
            raise ValueError(f"{self.file} has no kernel {self.name}")
        return tuple(_parse(text) for text in found[1].split(","))

    @functools.cached_property
    def most_threads(self) -> int:
        """Threads that a block can have: where the file's shared memory is for ``MOST_THREADS``, so many."""
        found = re.search(r"#define MOST_THREADS (\d+)", self.source)
        return int(found[1]) if found else _MOST_THREADS

    def __call__(self, count: int, *arguments: Any) -> None:
        """Launches the kernel for ``count`` elements, one thread each as far as the grid goes, on the current stream.

        Args:
            count: of the elements that the kernel's loop runs over; 0 launches nothing.
            arguments: device arrays and whole numbers, in the order of :attr:`parameters`.

        Raises:
            TypeError: an argument is of the wrong kind, dtype or device, or there are too few or too many.
            ValueError: an array is not C-contiguous or of another size, or a number does not fit its type, or
                :func:`blocks_of` asks for more threads than the kernel can have.
            KernelError: it does not compile.
        """
        if len(arguments) != len(self.parameters):
            names = ", ".join(parameter.name for parameter in self.parameters)
            raise TypeError(
                f"kernel {self.name} takes {len(self.parameters)} arguments ({names}), got {len(arguments)}"
            )
        wide = count > _NARROW or any(getattr(argument, "size", 0) > _NARROW for argument in arguments)
        pairs = list(zip(self.parameters, arguments, strict=True))
        t = next((a.dtype.name for p, a in pairs if p.kind == "T" and hasattr(a, "dtype")), "float32")
        if t not in _CTYPES:
            raise TypeError(f"kernel {self.name}: needs {', '.join(_CTYPES)}, got {t}")
        types = _DTYPES | {"T": t, "ACC": accumulator(t).name, "INDEX": "int64" if wide else "int32"}
        checked = [self._check(parameter, argument, types[parameter.kind]) for parameter, argument in pairs]
        if count:
            self._check_sizes(pairs)
            if _block > self.most_threads:
                raise ValueError(
                    f"kernel {self.name}: a block has at most {self.most_threads} threads, {_block} were asked for"
                )
            with self._range.of(arguments):
                self.compiled(t, wide)((min(-(-count // _block), _MOST_BLOCKS),), (_block,), checked)

    @functools.cache  # noqa: B019  (kernels live as long as the process)
    def compiled(self, t: str, wide: bool) -> Any:
        """The kernel for numbers of dtype ``t`` as CuPy's RawKernel, compiled; CuPy keeps the result on disk.

        The kernels of a file have one text, which CuPy compiles and loads for the first of them: it knows texts, not
        names.

        Raises:
            KernelError: it does not compile, or the compiler is missing.
        """
        import cupy

        kernel = cupy.RawKernel(self.code(t, wide), self.name)
        try:
            kernel.compile()
        except cupy.cuda.compiler.CompileException as error:
            raise KernelError(f"kernel {self.name} in {self.file} for {t} does not compile:\n{error}") from error
        except (ImportError, RuntimeError) as error:
            if hasattr(error, "status"):  # the driver's own
                raise
            where = f"kernel {self.name} in {self.file} cannot be compiled here"
            raise KernelError(f"{where}: {error}; xpnet devices says what to install") from error
        return kernel

    def code(self, t: str, wide: bool) -> str:
        """What is compiled: the macros, the prelude, and the file."""
        macros = {
            "T": _CTYPES[t],
            "ACC": _CTYPES[accumulator(t).name],
            "INDEX": "long long" if wide else "int",
            f"T_IS_{t.upper()}": "1",
        }
        lines = [f"#define {name} {value}" for name, value in macros.items()]
        return "\n".join([*lines, '#line 1 "prelude.cu"', _prelude(), f'#line 1 "{self.file}"', self.source])

    def _check(self, parameter: Parameter, argument: Any, dtype: str) -> Any:
        where = f"kernel {self.name}, {parameter.name}"
        if not parameter.is_array:
            return _number(where, argument, dtype)
        if type(argument).__module__.partition(".")[0] != "cupy":
            raise TypeError(f"{where}: needs a device array, got {type(argument).__name__}")
        if argument.dtype != dtype:
            raise TypeError(f"{where}: needs {dtype}, got {argument.dtype}")
        if not argument.flags.c_contiguous:
            raise ValueError(f"{where}: needs a C-contiguous array, got strides {argument.strides} of {argument.shape}")
        if argument.device.id != current_device().index:
            raise TypeError(f"{where}: lies on cuda:{argument.device.id}, the active device is {current_device()}")
        return argument

    def _check_sizes(self, pairs: list[tuple[Parameter, Any]]) -> None:
        numbers = {parameter.name: argument for parameter, argument in pairs if not parameter.is_array}
        for parameter, argument in pairs:
            needed = 1
            for operator, word in parameter.size:
                factor = numbers[word] if word in numbers else int(word)
                needed = needed // factor if operator == "/" else needed * factor
            if parameter.size and argument.size != needed:
                where = f"kernel {self.name}, {parameter.name}"
                raise ValueError(f"{where}: needs {needed:,} elements, got {argument.size:,} in {argument.shape}")

    def __repr__(self) -> str:
        return f"Kernel({self.file!r}, {self.name!r})"


def geometry(window: Window, channels: int, image: tuple[int, int]) -> tuple[int, ...]:
    """A window over images as the kernels take it, from ``channels`` to ``dilation_width``."""
    top, _, left, _ = window.pads(image)
    return (
        channels, *image, *window.output_size(image), *window.kernel, *window.stride, top, left, *window.dilation
    )  # fmt: skip


def _parse(text: str) -> Parameter:
    declared, _, size = text.partition("/*")
    words = declared.replace("*", " * ").replace("__restrict__", "").split()
    kind = " ".join(word for word in words[:-1] if word not in ("const", "*"))
    factors = tuple(re.findall(r"([*/]?)\s*(\w+)", size))
    return Parameter(words[-1], kind, "*" in words, words[0] == "const", factors)


def _number(where: str, value: Any, dtype: str) -> Any:
    """``value`` as a NumPy scalar of exactly the parameter's type."""
    if hasattr(value, "shape"):
        raise TypeError(f"{where}: needs a plain number, got an array")
    if dtype.startswith("float"):
        return numpy.dtype(dtype).type(value)
    if not isinstance(value, int):
        raise TypeError(f"{where}: needs a whole number, got {value!r}")
    limits = numpy.iinfo(dtype)
    if not limits.min <= value <= limits.max:
        raise ValueError(f"{where}: {value} does not fit {dtype}")
    return numpy.dtype(dtype).type(value)


@functools.lru_cache(maxsize=1)
def _prelude() -> str:
    return (importlib.resources.files("kernels") / "prelude.cu").read_text()
