"""Use NVIDIA's runtime compiler without driver and CuPy, for the machine code that CuPy would load.

As a program it compiles every kernel and writes the table of their resources, which tests compare with:

    PYTHONPATH=. python tests/support/nvrtc.py
"""

import contextlib
import ctypes
import functools
import importlib.util
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from ctypes.util import find_library
from pathlib import Path
from typing import NamedTuple

from kernels.core import catalog, tensor_tiles
from kernels.core.launch import FOLDER

ARCHITECTURES = (60, 70, 75, 80, 86, 89, 90, 100, 120)

# The options that CuPy 14.2 adds to a RawKernel, except the folders of headers, which no kernel includes, and the
# architecture. A test with marker gpu compares them with those that CuPy passes.
CUPY_OPTIONS = ("--std=c++17", "-ftz=true", "--device-as-default-execution-space")

TABLE = FOLDER / "resources.json"
BYTES = ("shared", "stack", "spilled")
COMMAND = "PYTHONPATH=. python tests/support/nvrtc.py"
MISSING = "NVRTC is not installed: the kernels are not compiled (pip install nvidia-cuda-nvrtc-cu12; no GPU needed)"

# A warning about the requested architecture, not about the source.
_OLD_ARCHITECTURE = re.compile(r"nvrtc: warning: Architectures prior to .* are deprecated")


class Use(NamedTuple):
    """The resources of a kernel on one architecture: registers of a thread, and bytes."""

    registers: int
    shared: int
    stack: int
    spilled: int


class Result(NamedTuple):
    """The compiler's output; ``complaints`` are its errors and warnings."""

    complaints: list[str]
    ptx: str
    uses: dict[str, Use]

    def atomics(self, kernel):
        """Return the atomic instructions of one kernel."""
        body = self.ptx.split(f".entry {kernel}(")[1].split(".entry ")[0]
        return re.findall(r"^\s*(?:@!?%p\d+\s+)?((?:atom|red)\.[\w.:]+)", body, re.MULTILINE)


@functools.cache
def library():
    """Return the compiler's shared library, or None if it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    found = sorted(path for folder in folders for path in folder.glob("*/lib/libnvrtc.so*"))
    name = str(found[-1]) if found else find_library("nvrtc")
    return ctypes.CDLL(name) if name else None


def version():
    """Return the compiler's version, such as "12.9"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def supported():
    """Return the architectures that the compiler can make code for."""
    count = ctypes.c_int()
    _call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    numbers = (ctypes.c_int * count.value)()
    _call("nvrtcGetSupportedArchs", numbers)
    return tuple(numbers)


def build(code, architecture):
    """Compile a source for one architecture down to machine code."""
    with _compiled(code, architecture) as (program, failed, log):
        return Result(_complaints(log, failed), "" if failed else _text(program, "PTX"), _uses(log))


def machine_code(code, architecture):
    """Return a source compiled for one architecture, as the bytes of a cubin.

    Raises:
        ValueError: it does not compile; the message is the compiler's.
    """
    with _compiled(code, architecture) as (program, failed, log):
        if failed:
            raise ValueError(log)
        return _bytes(program, "CUBIN")


@contextlib.contextmanager
def _compiled(code, architecture):
    """Yield the compiled program, the error code, and the log."""
    options = [*CUPY_OPTIONS, f"-arch=sm_{architecture}", "--ptxas-options=-v"]
    program = ctypes.c_void_p()
    _call("nvrtcCreateProgram", ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None)
    try:
        encoded = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        failed = library().nvrtcCompileProgram(program, len(options), encoded)
        yield program, failed, _text(program, "ProgramLog")
    finally:
        _call("nvrtcDestroyProgram", ctypes.byref(program))


def build_all(architectures, files=None):
    """Compile every variant of all or some files for every architecture; return {(variant, architecture): Result}."""
    variants = [variant for variant in catalog.variants() if files is None or variant.file in files]
    jobs = [(variant, architecture) for variant in variants for architecture in architectures]
    codes = {variant: variant.code for variant in variants}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # the compiler releases the GIL
        return dict(zip(jobs, pool.map(lambda job: build(codes[job[0]], job[1]), jobs), strict=True))


def table(results):
    """Return the table of the kernels' resources: registers by architecture, and the most bytes on any."""
    rows: dict[str, dict] = {}
    for (variant, architecture), result in results.items():
        for kernel, use in result.uses.items():
            entry = rows.setdefault(catalog.row_name(kernel, variant), dict.fromkeys(BYTES, 0) | {"registers": {}})
            entry |= {what: max(entry[what], getattr(use, what)) for what in BYTES}
            entry["registers"][str(architecture)] = use.registers
    return rows


TENSOR_CORES = tuple(architecture for architecture in ARCHITECTURES if architecture >= 80)


def build_tiles(jobs):
    """Compile texts of the convolution for architectures: {(variant, architecture): Result} of pairs of these."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(jobs, pool.map(lambda job: build(job[0].code, job[1]), jobs), strict=True))


def tile_table(results):
    """Return the resources of the convolution's kernels, as ``table``: a row for each tile."""
    rows: dict[str, dict] = {}
    for (variant, architecture), result in results.items():
        use = result.uses[tensor_tiles.KERNELS[variant.product]]
        entry = rows.setdefault(str(variant), dict.fromkeys(BYTES, 0) | {"registers": {}})
        entry |= {what: max(entry[what], getattr(use, what)) for what in BYTES}
        entry["registers"][str(architecture)] = use.registers
    return rows


def growth(name, entry, architecture, use):
    """Return texts that say how a kernel exceeds its entry in the table."""
    found = []
    known = entry["registers"][str(architecture)]
    if use.registers > max(1.1 * known, known + 2):
        found.append(f"{name} on sm_{architecture}: {use.registers} registers, the table has {known}")
    found += [
        f"{name} on sm_{architecture}: {getattr(use, what)} bytes {what}, the table has {entry[what]}"
        for what in BYTES
        if getattr(use, what) > 1.1 * entry[what]
    ]
    return found


def write_table():
    """Compile for every architecture the kernels whose sources are not those of the table, and write the table.

    Raises:
        SystemExit: a kernel does not compile, or the compiler does not support an architecture.
    """
    if library() is None:
        raise SystemExit(MISSING)
    beyond = sorted(set(ARCHITECTURES) - set(supported()))
    if beyond:
        raise SystemExit(f"NVRTC {version()} does not know architectures {beyond}: the table needs a newer one")
    old, sources = catalog.read_table(), {file: catalog.digest(file) for file in (*catalog.files(), *catalog.TILED)}
    comparable = (old["compiler"], old["options"]) == (version(), list(CUPY_OPTIONS))
    stale = {file for file in sources if not comparable or old["sources"].get(file) != sources[file]}
    results = build_all(ARCHITECTURES, stale)
    wanted = tensor_tiles.variants()
    kept_tiles = not stale & set(catalog.TILED) and set(old["tiles"]) == set(map(str, wanted))
    tiles = build_tiles([(variant, at) for variant in wanted for at in TENSOR_CORES if not kept_tiles])
    failed = [
        f"{variant} sm_{at}: {line}"
        for built in (results, tiles) for (variant, at), result in built.items() for line in result.complaints
    ]  # fmt: skip
    if failed:
        raise SystemExit("\n".join(failed))
    head = json.dumps({"compiler": version(), "options": CUPY_OPTIONS, "sources": sources})
    kept = {name for file in catalog.files() if file not in stale for name in catalog.kernels_of(file)}
    rows = {name: row for name, row in old["kernels"].items() if name.partition(" ")[0] in kept}
    parts = {"kernels": rows | table(results), "tiles": tile_table(tiles) or old["tiles"]}
    texts = [
        f'"{part}": {{\n'
        + ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(rows.items()))
        + "\n}"
        for part, rows in parts.items()
    ]
    TABLE.write_text(f"{head[:-1]}, {', '.join(texts)}}}\n")
    print(f"{TABLE}: {sum(map(len, parts.values()))} rows by NVRTC {version()}")


def _complaints(log, failed):
    lines = [line for line in log.splitlines() if line.strip() and not _OLD_ARCHITECTURE.match(line)]
    kept = [line for line in lines if not line.startswith(("ptxas info", "ptxas         ."))]
    return kept or (["it does not compile, and the log is empty"] if failed else [])


def _uses(log):
    """Read the resources of every kernel from the verbose log of ptxas."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:

        def number(pattern, part=part, default=None):
            match = re.search(pattern, part)
            if match is None and default is None:
                raise ValueError(f"no {pattern!r} in what the assembler says:\n{part}")
            return int(match[1]) if match else default

        found[part.split("'")[0]] = Use(
            number(r"Used (\d+) registers"),
            number(r"(\d+) bytes smem", default=0),
            number(r"(\d+) bytes stack frame"),
            number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        )
    return found


def _text(program, what):
    return _bytes(program, what).rstrip(b"\0").decode()


def _bytes(program, what):
    size = ctypes.c_size_t()
    _call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(f"nvrtcGet{what}", program, buffer)
    return buffer.raw


def _call(function, *arguments):
    code = getattr(library(), function)(*arguments)
    if code:
        raise RuntimeError(f"{function} returned {code}")


if __name__ == "__main__":
    write_table()
