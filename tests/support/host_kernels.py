"""Build the ``.cu`` files with the host's C++ compiler, and run operations on them.

``tests/cuda/shim.h`` provides CUDA's extensions of C++. Each file becomes a program that reads launches from its
standard input, so that a sanitizer watches only the kernels, in arrays of exactly their size.
"""

import atexit
import contextlib
import functools
import hashlib
import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import types
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest

import backend
import kernels.core.launch
from kernels.core import catalog
from kernels.core.geometry import STRUCT
from kernels.core.launch import Kernel

MEMORY, RACES, COVERAGE = "-fsanitize=address,undefined", "-fsanitize=thread", "--coverage"
"""Options of the compiler: watch memory accesses and undefined arithmetic, watch data races, count lines."""

MISSING = "no C++ compiler g++ with sanitizers: the kernels are not run on the host (apt install g++)"

_SHIM = Path(__file__).parent.parent / "cuda" / "shim.h"
_OPTIONS = ("-std=c++17", "-O0", "-g1", "-ffp-contract=off")
_ASSEMBLY = re.compile(r'asm(?: volatile)?\("([\w.]+)[^"]*"\s*:\s*"=\w"\(([^()]*)\)\s*:\s*"\w"\(([^()]*)\)\)')


class SanitizerError(AssertionError):
    """A sanitizer found an error in a kernel, or a block hangs at a barrier; the message is the sanitizer's."""


class Program:
    """A ``.cu`` file as a running program.

    Args:
        file: its name.
        watch: ``MEMORY``, ``RACES`` or ``COVERAGE``.
        edits: pairs (old, new) of source text; each old text must occur in the source.
    """

    def __init__(self, file, watch, edits=()):
        self.file, self.watch = file, watch
        self.variants = [(v.dtype, v.wide) for v in catalog.variants() if v.file == file]
        if edits or watch != MEMORY:  # these do not depend on the width of indices
            self.variants = [variant for variant in self.variants if not variant[1]]
        self.names = catalog.kernels_of(file)
        self.path = _build(_text(file, self.variants, self.names, edits), watch)
        self._process: Any = None

    def launch(self, name, dtype, wide, grid, block, seed, arguments):
        """Run a kernel to its end; the arrays that it writes are changed in place.

        Raises:
            SanitizerError: as the class says.
        """
        parameters = Kernel(self.file, name).parameters
        pairs = list(zip(parameters, arguments, strict=True))
        number = self.variants.index((dtype, wide)) * len(self.names) + self.names.index(name)
        request = [struct.pack("<3qQ", number, grid, block, seed)]
        for parameter, argument in pairs:
            raw = argument.tobytes()
            request.append(struct.pack("<q", len(raw)) + raw if parameter.is_array else raw.ljust(_slot(raw), b"\0"))
        arrays = [(argument, parameter.is_const) for parameter, argument in pairs if parameter.is_array]
        outputs = [array for array, is_const in arrays if not is_const]
        for i, (array, is_const) in enumerate(arrays):
            others = [other for j, (other, _) in enumerate(arrays) if j != i and not is_const]
            assert not any(numpy.shares_memory(array, other) for other in others), f"{name}: arguments overlap"
        if self._process is None:
            self._process = self._start()
        process = self._process
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"".join(request))
            process.stdin.flush()
        for output in outputs:
            raw = process.stdout.read(output.nbytes)
            if len(raw) < output.nbytes:
                raise self._fault(name)
            output[...] = numpy.frombuffer(raw, output.dtype).reshape(output.shape)
        if process.stdout.read(1) != b"!":
            raise self._fault(name)

    def close(self):
        """End the program and raise what its sanitizer found."""
        process, self._process = self._process, None
        if process is not None:
            _, said = process.communicate()
            if process.returncode:
                raise SanitizerError(f"{self.file}: {said.decode(errors='replace')}")

    def lines(self):
        """Return how often each line ran, in all ended processes of a program watched for ``COVERAGE``:
        {file: {line: count}} of the ``.cu`` files. Lines of a macro count as the line that uses it.
        """
        (notes,) = self.path.parent.glob(f"{self.path.name}*.gcno")
        done = subprocess.run(["gcov", "--json-format", "--stdout", str(notes)], check=True, capture_output=True)
        found: dict[str, Counter] = {}
        for file in json.loads(done.stdout)["files"]:
            for line in file["lines"] if file["file"].endswith(".cu") else []:
                found.setdefault(file["file"], Counter())[line["line_number"]] += line["count"]
        return found

    def _start(self):
        pipe = subprocess.PIPE
        # Fibers have their own stacks, which AddressSanitizer's fake stacks do not support.
        memory = "detect_leaks=0:detect_stack_use_after_return=0"
        environment = {"ASAN_OPTIONS": memory, "TSAN_OPTIONS": "halt_on_error=1"}
        return subprocess.Popen(_command(self.path, self.watch), stdin=pipe, stdout=pipe, stderr=pipe, env=environment)

    def _fault(self, name):
        process, self._process = self._process, None
        with contextlib.suppress(BrokenPipeError):  # nothing reads the rest
            process.stdin.close()
        process.stdin = None
        _, said = process.communicate()
        return SanitizerError(
            f"kernel {name} ended with code {process.returncode}:\n{said.decode(errors='replace')[:3000]}"
        )


@contextlib.contextmanager
def on_host(programs, seed=0, wide=False, block=kernels.core.launch.BLOCK):
    """Make the operations of ``kernels`` launch their kernels for NumPy arrays, as for CuPy's, inside the ``with``.

    Uninitialized memory is filled with NaN (integers with -1), so that elements which a kernel does not write show.

    Args:
        programs: function from the name of a file to its ``Program``.
        seed: of the order of blocks and threads; 0 is ascending.
        wide: use indices of 64 bits.
        block: threads in a block.
    """
    library = types.ModuleType("numpy_with_kernels")
    library.__dict__.update(vars(numpy), empty=_unwritten)

    def compiled(kernel, dtype, needs_wide):
        def launch(grid, threads, arguments):
            threads, blocks = threads[0], min(grid[0], 2)
            # Threads that do not depend on their block: use several blocks, even for small arrays.
            if not _has_barriers(kernel.code(dtype, wide)):
                threads, blocks = 8, min(grid[0] * threads // 8, 3)
            programs(kernel.file).launch(kernel.name, dtype, wide, blocks, threads, seed, arguments)

        return launch

    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if not name.startswith("kernels."):
                continue
            if hasattr(module, "array_module"):
                patch.setattr(module, "array_module", lambda *_: library)
            if hasattr(module, "implementation"):
                patch.setattr(module, "implementation", lambda _array, _on_numpy, on_cuda, *_: on_cuda)
        patch.setattr(backend.workspace, "empty", _unwritten)
        patch.setattr(Kernel, "compiled", compiled)
        patch.setattr(Kernel, "_check_argument", _check)
        patch.setattr(kernels.core.launch, "_NARROW", -1 if wide else kernels.core.launch._NARROW)
        with kernels.core.launch.blocks_of(block):
            yield


def _slot(raw):
    """Return the bytes that a number or a struct takes in a request: a multiple of 8."""
    return -(-len(raw) // 8) * 8


def _unwritten(shape, dtype="float32"):
    array = numpy.empty(shape, dtype)
    array.reshape(-1).view("uint8").fill(255)
    return array


def _check(kernel, parameter, argument, dtype):
    """Check an argument as ``Kernel._check_argument`` does, except for its device."""
    where = f"kernel {kernel.name}, {parameter.name}"
    if parameter.kind == "Geometry":
        assert argument.dtype == STRUCT, where
        return argument
    if not parameter.is_array:
        return kernels.core.launch._number(where, argument, dtype)
    assert argument.dtype == dtype, f"{where}: needs {dtype}, got {argument.dtype}"
    assert argument.flags.c_contiguous, where
    return argument


@functools.cache
def available():
    """Return whether the host can build and run programs with both sanitizers. A compiler that can, counts lines
    too."""
    if shutil.which("g++") is None:
        return False
    try:
        for watch in (MEMORY, RACES):
            path = _build("int main() { return 0; }", watch)
            subprocess.run(_command(path, watch), check=True, capture_output=True)
    except subprocess.CalledProcessError:
        return False
    return True


def _command(path, watch):
    # Without address space randomization, which conflicts with ThreadSanitizer on some Linux kernels.
    fixed = shutil.which("setarch") if watch == RACES else None
    return [fixed, "-R", str(path)] if fixed else [str(path)]


def _has_barriers(text):
    return "__sync" in text or "__shfl" in text


def _text(file, variants, names, edits):
    """Return the program: a namespace for each variant, and in it a function for each kernel."""
    parts, table = ['#include "shim.h"'], []
    for number, (dtype, wide) in enumerate(variants):
        code = Kernel(file, names[0]).code(dtype, wide)
        for old, new in edits:
            assert old in code, f"{file} has no {old!r} any more"
            code = code.replace(old, new, 1)
        code = _ASSEMBLY.sub(lambda m: f"ptx::{m[1].replace('.', '_')}({m[2]}, {m[3]})", code)
        assert "asm" not in re.sub(r"//.*", "", code), f"{file}: an asm statement that the shim does not know"
        macros = re.findall(r"^#define (\w+)", code, re.MULTILINE)
        code = code.replace('extern "C" __global__', "static")
        callers = [_caller(f"take{number}_{name}", name, Kernel(file, name).parameters) for name in names]
        table += [f"v{number}::take{number}_{name}" for name in names]
        parts += [
            f"namespace v{number} {{",
            code,
            '#line 1 "arguments"',
            *callers,
            "}",
            *(f"#undef {m}" for m in macros),
        ]
    parts.append(f"static void (*const table[])() = {{{', '.join(table)}}};")
    parts.append("int main() { return host::serve(table); }")
    return "\n".join(parts)


def _caller(function, kernel, parameters):
    """Return a function that reads a kernel's arguments, launches it, and writes back the arrays that it filled."""
    lines = [f"static void {function}() {{"]
    lines += [
        f"host::Array<{p.kind}> {p.name};" if p.is_array else f"auto {p.name} = host::number<{p.kind}>();"
        for p in parameters
    ]
    values = ", ".join(f"{p.name}.data" if p.is_array else p.name for p in parameters)
    lines.append(f"host::launch([&] {{ {kernel}({values}); }});")
    lines += [f"{p.name}.give();" for p in parameters if p.is_array and not p.is_const]
    return "\n".join([*lines, "}"])


@functools.cache
def _folder():
    folder = tempfile.TemporaryDirectory(prefix="xpnet-kernels-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def _build(text, watch):
    """Compile a program.

    Raises:
        subprocess.CalledProcessError: it does not compile; ``stderr`` has the compiler's messages.
    """
    facts = {"THREADS": watch == RACES, "BARRIERS": _has_barriers(text), "SHARED": "__shared__" in text}
    macros = [f"-DXPNET_{name}" for name, holds in facts.items() if holds]
    path = _folder() / hashlib.sha256(f"{watch} {text}".encode()).hexdigest()[:16]
    path.with_suffix(".cpp").write_text(text)
    checks = [watch, "-fno-sanitize-recover=all", "-pthread"]
    names = [f"-I{_SHIM.parent}", "-o", str(path), str(path.with_suffix(".cpp"))]
    command = ["g++", *_OPTIONS, *macros, *checks, *names]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return path
