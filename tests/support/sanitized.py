"""Run tests with C kernels that were compiled otherwise than a wheel's, from a copy of the sources.

    python tests/support/sanitized.py KIND [PYTEST'S ARGUMENTS]

Kinds: ``address``, memory errors and undefined behavior (AddressSanitizer, UBSan); ``thread``, data races
(ThreadSanitizer); ``narrow``, vectors of 16 bytes, as arm64 has them, on an x86-64 processor. The compiler is that of
ziglang, the sanitizers' runtimes are gcc's. NumPy's arrays lie in memory that the runtimes watch: they replace malloc.
Before the tests mistakes are made on purpose, one for each check, and have to be found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PARTS = ("backend", "bench", "examples", "kernels", "layers", "tests", "training", "pyproject.toml")

LEFT_OUT = [
    f"--ignore=tests/kernels/test_{name}.py"
    for name in ("native", "pool", "c_sources", "build_native", "guard_pages", "seeded_mistakes_in_c")
]
"""Tests of the library as a wheel has it, or with checks of their own, which kill processes or compile again."""


class Kind(NamedTuple):
    """A way to compile the kernels.

    Attributes:
        flags: of the compiler.
        runtimes: libraries of gcc to load before Python.
        environment: of the tests.
        vector_bytes: of the level v3, which alone is compiled.
        mistakes: programs with an error, and what is said about it.
    """

    flags: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    environment: Mapping[str, str] = MappingProxyType({})
    vector_bytes: int = 32
    mistakes: tuple[tuple[str, str], ...] = ()


MISTAKE = """
import threading
import numpy
from kernels.core.native import Function, library
assert library().handle, library().reason
relu, size = Function("activations.c", "relu"), 199_999
x, y, positive = numpy.ones(size, "float32"), numpy.ones(size, "float32"), numpy.ones(size, bool)
"""
BEYOND = MISTAKE + "relu(x.dtype, x, y, positive, size, 0, size + 1)"
OVERFLOW = MISTAKE + "relu(x.dtype, x, y, positive, size, 2**63 - 1, 2**63 - 1)"  # where would a vector end?
RACE = (
    MISTAKE
    + """
def often():
    for _ in range(300):
        relu(x.dtype, x, y, positive, size, 0, size)
both = [threading.Thread(target=often) for _ in range(2)]
[thread.start() for thread in both]
[thread.join() for thread in both]
"""
)

KINDS = {
    "address": Kind(
        (
            "-g1",
            "-O1",
            "-fsanitize=address",
            "-fsanitize=undefined",
            "-fno-sanitize-trap=all",
            "-fno-sanitize=function",
        ),
        ("libasan.so", "libubsan.so"),
        {
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
            "XPNET_NATIVE": "v3",
        },
        mistakes=((BEYOND, "heap-buffer-overflow"), (OVERFLOW, "signed integer overflow")),
    ),
    "thread": Kind(  # it watches accesses of at most 16 bytes
        ("-g1", "-O1", "-fsanitize=thread", "-mllvm", "-tsan-instrument-memintrinsics=0"),  # memset is watched itself
        ("libtsan.so",),
        {
            "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
            "XPNET_NATIVE": "v3",
            "XPNET_THREADS": "3",
            "OPENBLAS_NUM_THREADS": "1",  # its threads wait for each other by means that are not watched
        },
        vector_bytes=16,
        mistakes=((RACE, "data race"),),
    ),
    "narrow": Kind(environment={"XPNET_NATIVE": "v3"}, vector_bytes=16),
}


def command(kind: Kind) -> list[str]:
    """Return the command that runs Python with the runtimes, each thread's memory where they expect it."""
    python = [sys.executable]
    return ["setarch", "-R", *python] if kind.runtimes else python


def environment(kind: Kind, report: Path | None = None) -> dict[str, str]:
    """Return the environment of a Python with the runtimes, which write to standard error or to files ``report.*``."""
    paths = []
    for name in kind.runtimes:
        found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        paths.append(str(Path(found.strip()).resolve()))
        if "/" not in found:
            raise SystemExit(f"gcc has no {name}")
    given = {"LD_PRELOAD": " ".join(paths)} if paths else {}
    options = {
        name: f"{value}:log_path={report}" for name, value in kind.environment.items() if name.endswith("_OPTIONS")
    }
    given |= options if report else {}
    return {**os.environ, **kind.environment, **given, "XPNET_REQUIRE_NATIVE": "1", "XPNET_DEVICE": "cpu"}


def build(kind: Kind, folder: Path) -> None:
    """Copy the sources into a folder, and compile their kernels there."""
    for name in PARTS:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__", "native.lib*")
        shutil.copytree(source, folder / name, ignore=ignored) if source.is_dir() else shutil.copy(source, folder)
    sys.path.insert(0, str(folder))
    from kernels.core import build_native

    target = build_native.this_target()
    if target is None or build_native.V3 not in target.levels:
        raise SystemExit("the checks need an x86-64 processor")
    levels = (build_native.V3._replace(vector_bytes=kind.vector_bytes),)
    library = Path(build_native.__file__).parent / build_native.LIBRARY
    build_native.build(target._replace(levels=levels), library, flags=kind.flags)


def check_mistakes(kind: Kind, folder: Path) -> None:
    """Raise SystemExit unless each mistake is found: else the check proves nothing."""
    for program, words in kind.mistakes:
        given = [*command(kind), "-c", program]
        done = subprocess.run(given, env=environment(kind), cwd=folder, capture_output=True, text=True)
        if done.returncode == 0 or words not in done.stderr:
            said = done.stderr[-3000:]
            raise SystemExit(f"a mistake was not found, expected {words}; exit {done.returncode}\n{said}")
        print(f"a mistake on purpose was found: {words}", flush=True)


def main() -> None:
    """Build, look for the mistakes, and run the tests."""
    if len(sys.argv) < 2 or sys.argv[1] not in KINDS:
        raise SystemExit(f"usage: {sys.argv[0]} {'|'.join(KINDS)} [PYTEST'S ARGUMENTS]")
    kind = KINDS[sys.argv[1]]
    with tempfile.TemporaryDirectory() as place:
        build(kind, Path(place))
        check_mistakes(kind, Path(place))
        given = [*command(kind), "-m", "pytest", "-q", "-p", "no:cacheprovider", *LEFT_OUT, *sys.argv[2:]]
        code = subprocess.run(given, env=environment(kind, Path(place) / "report"), cwd=place).returncode
        for report in Path(place).glob("report.*"):  # of a test's process, whose own output pytest keeps
            print(report.read_text(encoding="utf-8", errors="replace")[:5000])
        raise SystemExit(code)


if __name__ == "__main__":
    main()
