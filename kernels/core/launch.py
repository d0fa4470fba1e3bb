"""Launch the CUDA kernels of the ``.cu`` files: arguments checked against the source, compiled at the first launch.

CuPy checks nothing about a RawKernel's arguments: strides are ignored, a float64 array passes for ``float*``, and a
Python float given for a ``float`` parameter arrives as 0. So the parameters are read from the kernel's signature in
its source (``kernels.core.signature``), and every argument is held against them: also how many elements an array
has, where a comment behind it says so, ``const T *x /* rows * classes */``.

Checking costs more than launching. So each combination of dtypes, shapes, strides, devices and whole numbers is
checked once and kept as a plan, which every later launch of the same combination uses.

CuPy adds ``-ftz=true`` to every compilation, after any option of ours: float32 numbers below 1.2e-38 count as 0 in a
kernel, and come out as 0. Comments in the ``.cu`` files that promise the same bits as on the CPU except these.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import re
from collections.abc import Callable, Iterator
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from backend import current_device, profiling
from kernels.core import compiling
from kernels.core.dtypes import acc_dtype
from kernels.core.geometry import STRUCT
from kernels.core.signature import Parameter, element_counts, read_parameters

FOLDER = Path(__file__).parent.parent
"""Where the ``.cu`` files are."""

JOINED = {
    **dict.fromkeys(("batch_norm.cu", "batch_norm_backward.cu"), ("column_tiles.cu",)),
    "convolution.cu": ("tensor_cores.cu", "pixels.cu", "windows.cu", "tile_results.cu"),
    "convolution_weight.cu": ("tensor_cores.cu", "add_parts.cu"),
    "convolution_weight_halo.cu": ("tensor_cores.cu", "pixels.cu", "add_parts.cu"),
    **dict.fromkeys(("lstm.cu", "gru.cu"), ("gates.cu",)),
    "layer_norm.cu": ("row_groups.cu", "sum_tiles.cu"),
    "softmax.cu": ("row_groups.cu",),
    **dict.fromkeys(("depthwise.cu", "sums.cu"), ("sum_tiles.cu",)),
}
"""The files of ``kernels/core`` that are put between the prelude and a file."""

BLOCK = 256
"""Threads in a block."""

_MOST_THREADS = 1024  # in a block, on every architecture
_MOST_BLOCKS = 1 << 16  # the kernels' loops stride over the grid: more blocks would only be scheduled later
_NARROW = (1 << 31) - _MOST_BLOCKS * _MOST_THREADS  # past this an int32 loop counter could overflow in its last step
_MOST_PLANS = 4096  # kept by the process
_block = BLOCK

_CTYPES = {"float16": "half16", "float32": "float", "float64": "double"}
_DTYPES = {"int": "int32", "unsigned int": "uint32", "unsigned char": "uint8", "float": "float32", "double": "float64"}
_SCALARS = {name: numpy.dtype(name).type for name in (*_DTYPES.values(), *_CTYPES, "int64")}
_LIMITS = {
    name: (int(numpy.iinfo(name).min), int(numpy.iinfo(name).max))
    for name, scalar in _SCALARS.items()
    if issubclass(scalar, numpy.integer)
}


def block_size() -> int:
    """Return the threads in a block of the next launch: ``BLOCK``, except inside ``blocks_of``."""
    return _block


@contextlib.contextmanager
def blocks_of(threads: int) -> Iterator[None]:
    """Launch kernels in blocks of ``threads`` threads inside a ``with``, to measure other sizes than ``BLOCK``.

    Sums to which several threads of a block contribute are added in another order: their last bits may differ. All
    else is the same, bit for bit. It holds for the process, not for the thread.

    Raises:
        ValueError: ``threads`` is not a power of two from 32 to 1024. A kernel whose blocks have to be smaller raises
            one when it is launched.
    """
    global _block
    if threads not in (1 << power for power in range(5, 11)):
        raise ValueError(f"a block has 32, 64, 128, 256, 512 or 1024 threads, not {threads}")
    before, _block = _block, threads
    try:
        yield
    finally:
        _block = before


class _Plan(NamedTuple):
    """A launch that was checked.

    ``values`` are the arguments, None where each launch has its own; ``numbers`` are the place, name and dtype of each
    number among these.
    """

    launch: Callable[..., None]
    grid: tuple[int]
    block: tuple[int]
    values: list[Any]
    numbers: list[tuple[int, str, str]]


_plans: dict[tuple[Any, ...], _Plan] = {}
_KEPT = ("int", "INDEX", "unsigned char")
_checked_attributes = attrgetter("dtype", "shape", "strides", "data.device_id")
_struct_bytes = methodcaller("tobytes")


def _no_part(argument: Any) -> None:
    """Return nothing: the argument is not part of a key."""


class Kernel:
    """A kernel of a ``.cu`` file in this folder.

    The source may use the macros ``T`` (the numbers' type), ``ACC`` (in which they are summed: float for half16),
    ``INDEX`` (int, or long long where an array has more than about 2³¹ elements) and what ``prelude.cu`` defines.

    Args:
        file: name of the file, such as ``"col2im.cu"``.
        name: name of the function in it.

    Raises:
        ValueError: the file has no such kernel.
    """

    def __init__(self, file: str, name: str) -> None:
        self.file = file
        self.name = name
        self._range = profiling.Range(name, kind="operation")

    @functools.cached_property
    def source(self) -> str:
        """Return the text of the file."""
        return (FOLDER / self.file).read_text(encoding="utf-8")

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Return the parameters as the source declares them."""
        found = read_parameters(self.source, self.name)
        if found is None:
            raise ValueError(f"{self.file} has no kernel {self.name}")
        return found

    @functools.cached_property
    def most_threads(self) -> int:
        """Return the most threads of a block: ``MOST_THREADS`` of its text, for which its shared memory suffices."""
        found = re.search(r"#define MOST_THREADS (\d+)", self.code("float32", False))
        return int(found[1]) if found else _MOST_THREADS

    def __call__(self, count: int, *arguments: Any) -> None:
        """Launch the kernel for ``count`` elements, one thread each as far as the grid goes, on the current stream.

        Args:
            count: number of elements that the kernel's loop runs over; 0 launches nothing.
            arguments: device arrays, numbers, and a struct of ``kernels.core.geometry.Geometry.struct`` for a
                ``Geometry``, in the order of ``parameters``.

        Raises:
            TypeError: an argument is of the wrong type, dtype or device, or there are too few or too many.
            ValueError: an array is not C-contiguous or of another size, or a number does not fit its type, or
                ``blocks_of`` asks for more threads than the kernel can have.
            KernelError: it does not compile.
        """
        try:
            read = [part(argument) for part, argument in zip(self._key_parts, arguments, strict=True)]
            key = self, count, _block, current_device().index, *read
            plan = _plans.get(key)
        except (AttributeError, TypeError, ValueError):
            key, plan = (), None  # the checks say which argument is wrong
        if plan is None:
            plan = self._check(count, arguments)
            if plan is None:
                return
            if key:
                if len(_plans) >= _MOST_PLANS:
                    _plans.clear()
                _plans[key] = plan
        launch, grid, block, kept, numbers = plan
        values = [given if value is None else value for value, given in zip(kept, arguments, strict=True)]
        for place, where, dtype in numbers:
            values[place] = _number(where, arguments[place], dtype)
        if profiling.is_listened_to():
            with self._range.of(arguments):
                launch(grid, block, values)
        else:
            launch(grid, block, values)

    @functools.cached_property
    def _key_parts(self) -> list[Callable[[Any], Any]]:
        """Return for each parameter the function that gives its argument's part of a plan's key.

        Whole numbers and structs are in the key, and a plan keeps them as the kernel takes them. Floats, and the words
        of a position in a random stream, differ between launches: each is checked and converted every time.
        """
        return [
            _checked_attributes if p.is_array
            else _struct_bytes if p.kind == "Geometry"
            else operator.index if p.kind in _KEPT
            else _no_part
            for p in self.parameters
        ]  # fmt: skip

    def _check(self, count: int, arguments: tuple[Any, ...]) -> _Plan | None:
        """Check everything; compile the kernel and return the plan, or None where there is nothing to launch."""
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
        kinds = _DTYPES | {"T": t, "ACC": acc_dtype(t).name, "INDEX": "int64" if wide else "int32"}
        types = [kinds.get(parameter.kind, "") for parameter in self.parameters]
        values = [self._check_argument(*pair, dtype) for pair, dtype in zip(pairs, types, strict=True)]
        if not count:
            return None
        self._check_sizes(pairs)
        if _block > self.most_threads:
            raise ValueError(
                f"kernel {self.name}: a block has at most {self.most_threads} threads, {_block} were asked for"
            )
        numbers, varies = [], [parameter.is_array for parameter in self.parameters]
        for place, (parameter, dtype, part) in enumerate(zip(self.parameters, types, self._key_parts, strict=True)):
            if part is _no_part:
                numbers.append((place, f"kernel {self.name}, {parameter.name}", dtype))
                varies[place] = True
        kept = [None if each else value for value, each in zip(values, varies, strict=True)]
        grid = (min(-(-count // _block), _MOST_BLOCKS),)
        return _Plan(self.compiled(t, wide), grid, (_block,), kept, numbers)

    @functools.cache  # noqa: B019  (kernels live as long as the process)
    def compiled(self, t: str, wide: bool) -> Any:
        """Return the kernel for numbers of dtype ``t``, as ``compiling.compiled`` does; errors as there."""
        return compiling.compiled(self.code(t, wide), self.name, f"{self.file} for {t}")

    def code(self, t: str, wide: bool) -> str:
        """Return the text that is compiled: the macros, the prelude, what the file is ``JOINED`` with, and the file."""
        macros = {
            "T": _CTYPES[t],
            "ACC": _CTYPES[acc_dtype(t).name],
            "INDEX": "long long" if wide else "int",
            f"T_IS_{t.upper()}": "1",
        }
        lines = [f"#define {name} {value}" for name, value in macros.items()]
        texts = [(name, _core_text(name)) for name in ("prelude.cu", *JOINED.get(self.file, ()))]
        lines += [f'#line 1 "{name}"\n{text}' for name, text in [*texts, (self.file, self.source)]]
        return "\n".join(lines)

    def _check_argument(self, parameter: Parameter, argument: Any, dtype: str) -> Any:
        where = f"kernel {self.name}, {parameter.name}"
        if parameter.kind == "Geometry":
            if getattr(argument, "dtype", None) != STRUCT:
                raise TypeError(f"{where}: needs the struct of a Geometry, got {type(argument).__name__}")
            return argument
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
        needed = element_counts(self.parameters, {parameter.name: argument for parameter, argument in pairs})
        for parameter, argument in pairs:
            if parameter.name in needed and argument.size != needed[parameter.name]:
                where, count = f"kernel {self.name}, {parameter.name}", needed[parameter.name]
                raise ValueError(f"{where}: needs {count:,} elements, got {argument.size:,} in {argument.shape}")

    def __repr__(self) -> str:
        return f"Kernel({self.file!r}, {self.name!r})"


def _number(where: str, value: Any, dtype: str) -> Any:
    """Return ``value`` as a NumPy scalar of exactly the parameter's type."""
    if type(value) not in (int, float):
        if isinstance(value, numpy.generic):
            value = value.item()
        if hasattr(value, "shape"):
            raise TypeError(f"{where}: needs a plain number, got an array")
    limits = _LIMITS.get(dtype)
    if limits is not None:
        if not isinstance(value, int):
            raise TypeError(f"{where}: needs a whole number, got {value!r}")
        if not limits[0] <= value <= limits[1]:
            raise ValueError(f"{where}: {value} does not fit {dtype}")
    return _SCALARS[dtype](value)


@functools.cache
def _core_text(name: str) -> str:
    """Return a file of ``kernels/core`` that others are joined with."""
    return (FOLDER / "core" / name).read_text(encoding="utf-8")
