"""Compile the C kernels into one shared library, with the C compiler that the wheel ``ziglang`` brings.

``pip install`` does so by itself (the last lines are Hatchling's hook); ``python kernels/core/build_native.py`` does it
again in a checkout whose C files have changed. The library links to nothing: it has the same bits wherever it is
compiled, for one version of the compiler.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

KERNELS = Path(__file__).parent.parent
LIBRARY = "native.lib"  # the same name on every system: it is loaded by its path, and no Python module
COMPILER = "ziglang>=0.17,<0.18"  # one version: the kernels' bits are the compiler's
REMEDY = f"{sys.executable} -m pip install '{COMPILER}' && {sys.executable} {Path(__file__)}"

TYPES = {"half": ("_Float16", "-DT_IS_HALF"), "float": ("float",), "double": ("double", "-DT_IS_DOUBLE")}

FLAGS = (
    "-std=c17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
)
ANY_PROCESSOR = ("cpu.c", "pool.c")  # files of the folder core, compiled once for any processor
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-pass-failed")


class Level(NamedTuple):
    """A level of processor that kernels are compiled for.

    Attributes:
        cpu: the compiler's name. Its vectors have 64 bytes only if it is told not to prefer shorter ones.
    """

    name: str
    cpu: str
    vector_bytes: int


V3 = Level("v3", "x86_64_v3", 32)
V4 = Level("v4", "x86_64_v4-prefer_256_bit", 64)
ARM64 = Level("arm64", "generic", 16)


class Target(NamedTuple):
    """A system that the library is built for.

    Attributes:
        triple: the compiler's name; for Linux with the oldest glibc.
        tag: of the wheel. One for Linux calls of libc what glibc and musl both have: memcpy, memset, sched_yield.
    """

    triple: str
    levels: tuple[Level, ...]
    tag: str
    any_cpu: str


TARGETS = {
    ("Linux", "x86_64"): Target(
        "x86_64-linux-gnu.2.17", (V3, V4), "manylinux_2_17_x86_64.musllinux_1_1_x86_64", "x86_64"
    ),
    ("Linux", "aarch64"): Target(
        "aarch64-linux-gnu.2.17", (ARM64,), "manylinux_2_17_aarch64.musllinux_1_1_aarch64", "generic"
    ),
    ("Darwin", "x86_64"): Target("x86_64-macos.11.0", (V3, V4), "macosx_11_0_x86_64", "x86_64"),
    ("Darwin", "arm64"): Target("aarch64-macos.11.0", (ARM64,), "macosx_11_0_arm64", "generic"),
    ("Windows", "AMD64"): Target("x86_64-windows-gnu", (V3, V4), "win_amd64", "x86_64"),
}


def this_target() -> Target | None:
    """Return the target of this machine, or None where there is none, as for a Python of 32 bits."""
    return TARGETS.get((platform.system(), platform.machine())) if sys.maxsize > 1 << 32 else None


def sources() -> list[Path]:
    """Return the files of C kernels."""
    return sorted(KERNELS.glob("*.c"))


def digest() -> str:
    """Return a hash of all that the library is made from: C files, headers, and this file with the flags."""
    core = KERNELS / "core"
    files = [*sources(), *sorted(core.glob("*.h")), *(core / name for name in ANY_PROCESSOR), Path(__file__)]
    found = hashlib.sha256()
    for file in files:
        found.update(b"%s %d\n" % (file.name.encode(), file.stat().st_size))
        found.update(file.read_bytes())
    return found.hexdigest()[:32]


def build(
    target: Target,
    library: Path,
    flags: Sequence[str] = (),
    compiler: Sequence[str] = (),
    files: Sequence[Path] = (),
) -> None:
    """Compile kernels for a target, and link them.

    Args:
        library: where to put it.
        flags: more of the compiler's, such as a sanitizer's.
        compiler: its command; ziglang's by default.
        files: of kernels; all by default.

    Raises:
        RuntimeError: the compiler failed; the message has what it printed.
    """
    zig = [sys.executable, "-m", "ziglang"]
    command = list(compiler) or [*zig, "cc", "-target", target.triple]
    with tempfile.TemporaryDirectory() as place:
        any_cpu = ["-std=c17", f"-mcpu={target.any_cpu}", "-O2", f'-DSOURCES="{digest()}"']
        jobs = [(any_cpu, KERNELS / "core" / name, Path(place) / f"{name}.o") for name in ANY_PROCESSOR]
        given_sources = list(files or sources())
        shared = Path(place) / "shared.c"
        shared.write_text(shared_calls(given_sources), encoding="utf-8")
        for source in (*given_sources, shared):
            for name, (kind, *macros) in TYPES.items():
                for level in target.levels:
                    given = {"T": kind, "T_NAME": name, "LEVEL": level.name, "VECTOR_BYTES": level.vector_bytes}
                    options = [f"-mcpu={level.cpu}", *FLAGS, *WARNINGS, f"-I{KERNELS}", *macros]
                    options += [f"-D{macro}={value}" for macro, value in given.items()]
                    jobs.append((options, source, Path(place) / f"{source.stem}-{name}-{level.name}.o"))
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(_cache_folder(Path(place)))}
        commands = [[*command, *job[0], *flags, "-c", str(job[1]), "-o", str(job[2])] for job in jobs]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda given: _run(given, environment), commands))
        objects = [str(job[2]) for job in jobs]
        made = Path(place) / LIBRARY
        if "windows" in target.triple:  # memcpy and memset, which the compiler may call, come from its own library
            options = ["-fcompiler-rt", "-OReleaseFast", "-fstrip", "-fno-emit-implib", f"-femit-bin={made}"]
            options += ["-dynamic", "-target", target.triple, *objects, "-lkernel32"]
            _run([*zig, "build-lib", *options], environment)
        else:  # they are the process's
            options = ["-undefined", "dynamic_lookup"] if "macos" in target.triple else ["-nostdlib"]
            options += [] if flags else ["-s"]
            _run([*command, "-shared", *options, *objects, "-o", str(made)], environment)
        _replace(made, library)


_HEAD = re.compile(r"^KERNEL\((\w+)\)\(([^)]*)\)", re.MULTILINE)

_SHARED = """
KERNEL({name})({all});
typedef struct {{ {members} }} {name}_given;
static void {name}_part(const void *given, index thread, index first, index last) {{
    const {name}_given *g = given;
    (void)thread;
    JOINED({name}, T_NAME, LEVEL)({values}, first, last);
}}
KERNEL({name}_shared)({own}, index items, index pieces, index team) {{
    const {name}_given given = {{ {names} }};
    xpnet_share({name}_part, &given, items, pieces, {team});
}}
"""


def shared_calls(files: Sequence[Path]) -> str:
    """Return C functions ``name_shared`` that share a kernel's range, its last two parameters, among threads.

    In its place they take how many items there are in all, in how many pieces to compute them, and by how many threads:
    at most the kernel's ``threads``, if it has such. Its ``thread`` before the range is the number of the thread.
    """
    made = ['#include "core/pool.h"\n#include "core/vectors.h"\n']
    for file in files:
        for name, parameters in _HEAD.findall(file.read_text(encoding="utf-8")):
            written = [" ".join(each.split()) for each in re.sub(r"/\*.*?\*/", "", parameters, flags=re.S).split(",")]
            if written[-2:-1] != ["index first"]:
                continue
            numbered = written[-3] == "index thread"
            own = written[: -3 if numbered else -2]
            names = [re.findall(r"\w+", each)[-1] for each in own]
            values = ", ".join([*(f"g->{each}" for each in names), *(["thread"] if numbered else [])])
            members = " ".join(f"{each};" for each in own)
            given = {"name": name, "all": ", ".join(written), "own": ", ".join(own), "names": ", ".join(names)}
            team = "least(team, threads)" if numbered else "team"
            made.append(_SHARED.format(**given, members=members, values=values, team=team))
    return "".join(made)


def _replace(made: Path, library: Path) -> None:
    """Put a library in its place in one step: a process that has loaded the old one keeps it."""
    beside = library.with_name(f"{library.name}.{os.getpid()}")
    beside.write_bytes(made.read_bytes())
    beside.replace(library)


def _cache_folder(otherwise: Path) -> Path:
    """Return the folder in which the compiler keeps what it has made, or another where the user's cannot be written."""
    given = os.environ.get("ZIG_GLOBAL_CACHE_DIR")
    try:
        folder = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zig"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home at all is a RuntimeError
        return otherwise
    return folder if os.access(folder, os.W_OK) else otherwise


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def main() -> None:
    """Build the library for this machine, in this checkout."""
    target = this_target()
    if target is None:
        raise SystemExit(f"there are no C kernels for {platform.system()} on {platform.machine()}: NumPy does the work")
    build(target, KERNELS / "core" / LIBRARY)


if __name__ == "__main__":
    main()
elif "hatchling" in sys.modules:  # it loads this file; the library's own programs need no hook
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class Hook(BuildHookInterface):
        """Put the library into a wheel, and beside its sources, where an editable install finds it.

        With ``XPNET_NATIVE=0``, and for a system that is no target, the wheel has no library and is for every system.
        """

        PLUGIN_NAME = "custom"

        def dependencies(self) -> list[str]:
            return [COMPILER] if self._target() else []

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            target = self._target()
            if target is None:
                return
            try:
                build(target, KERNELS / "core" / LIBRARY)
            except RuntimeError as error:
                raise SystemExit(f"{error}\nWith XPNET_NATIVE=0 xpnet is installed without C kernels.") from None
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{target.tag}"
            build_data["artifacts"].append(f"/kernels/core/{LIBRARY}")

        def _target(self) -> Target | None:
            return this_target() if self.target_name == "wheel" and os.environ.get("XPNET_NATIVE") != "0" else None
