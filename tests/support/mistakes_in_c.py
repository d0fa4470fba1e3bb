"""Put mistakes into C kernels, one at a time: the tests of the operation have to find each.

    python -m tests.support.mistakes_in_c [--one-each | NAME…]

tries the mistakes named, the first of each C file, or all, and exits with the names of those that were not found. A
mistake is compiled for float32 and one level of processor, this one's best if it names none, and used in the place of
the library's own function. The same tests have to pass with the same files, compiled so without a mistake: else nothing
was found.
"""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support.c_kernels import own_levels
from tests.support.c_mistakes import MISTAKES, Mistake

ROOT = Path(__file__).parents[2]

OPTIONS = (
    "-q", "-x", "-p", "no:cacheprovider", "-p", "tests.support.mistakes_in_c", "-k", "not float16 and not float64",
)  # fmt: skip
"""Pytest's, with this module as a plugin: until the first failure, and without the dtypes that have no mistake."""


def place_of(mistake: Mistake) -> Path:
    """Return the file with a mistake's text: the C file, or a header that it includes.

    Raises:
        ValueError: there is no such text.
    """
    from kernels.core.build_native import KERNELS

    files = [KERNELS / mistake.file]
    for file in files:  # which grow meanwhile
        text = file.read_text(encoding="utf-8")
        if mistake.old in text:
            return file
        included = [KERNELS / "core" / name for name in re.findall(r'#include "(?:core/)?(\w+\.h)"', text)]
        files += [path for path in included if path not in files]
    raise ValueError(f"{mistake.file} has no text {mistake.old!r}: put the mistake in another place")


def compiled(mistakes: Sequence[Mistake], folder: Path) -> Any:
    """Return the library of a copy of the files, each with its mistake.

    Raises:
        RuntimeError: it does not compile.
        ValueError: a source has no such text.
    """
    from kernels.core import build_native, native

    kernels = build_native.KERNELS
    (folder / "core").mkdir()
    for path in (*(kernels / "core").glob("*.[ch]"), *(kernels / mistake.file for mistake in mistakes)):
        shutil.copy(path, folder / path.relative_to(kernels))
    for mistake in mistakes:
        copy = folder / place_of(mistake).relative_to(kernels)
        copy.write_text(copy.read_text(encoding="utf-8").replace(mistake.old, mistake.new, 1), encoding="utf-8")
    target = build_native.this_target()
    assert target is not None
    target = target._replace(levels=tuple(level for level in target.levels if level.name == native.library().level))
    files = [folder / name for name in dict.fromkeys(mistake.file for mistake in mistakes)]
    flags = ["-Wno-error", "-O1"]  # of what is unused; and fast, as it runs once
    with (
        mock.patch.object(build_native, "TYPES", {"float": ("float",)}),
        mock.patch.object(build_native, "KERNELS", folder),  # the headers' place
    ):
        build_native.build(target, folder / "mistake.lib", flags=flags, files=files)
    return ctypes.CDLL(str(folder / "mistake.lib"))


def pytest_configure(config: Any) -> None:
    """Use the functions of ``XPNET_MISTAKES`` in the place of the library's (this module is also a pytest plugin)."""
    from kernels.core import native

    mistakes = [Mistake(*given) for given in json.loads(os.environ["XPNET_MISTAKES"])]
    files = {mistake.file for mistake in mistakes}
    with tempfile.TemporaryDirectory() as folder:
        handle = compiled(mistakes, Path(folder))
    find = native.Function._find

    def found(self: Any, dtype: Any, name: str, parameters: Any) -> Any:
        if self.file not in files or dtype.name != "float32":
            return find(self, dtype, name, parameters)
        whole = native.library()
        with mock.patch.object(native, "library", return_value=whole._replace(handle=handle)):
            return find(self, dtype, name, parameters)

    native.Function._find = found  # type: ignore[method-assign]


def pytest_sessionstart(session: Any) -> None:
    """Let an example that fails be enough: a smaller one tells nothing new here, and takes seconds."""
    from hypothesis import Phase, settings

    settings.register_profile("mistakes", settings(), phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mistakes")


def is_found(*mistakes: Mistake) -> bool:
    """Return whether a test fails with the mistakes.

    Raises:
        RuntimeError: the tests did not run to a verdict, as where a mistake does not compile, crashes, or has no tests.
    """
    given = {"XPNET_MISTAKES": json.dumps(mistakes), "XPNET_REQUIRE_NATIVE": "1", "PYTHONPATH": str(ROOT)}
    if mistakes[0].level:
        given["XPNET_NATIVE"] = mistakes[0].level
    tests = dict.fromkeys(mistake.tests.partition("::") for mistake in mistakes)
    paths = [f"tests/kernels/test_{file}.py{colons}{function}" for file, colons, function in tests]
    command = [sys.executable, "-m", "pytest", *OPTIONS, *paths]
    done = subprocess.run(command, env={**os.environ, **given}, cwd=ROOT, capture_output=True, text=True, timeout=600)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    failed = done.returncode == 1 and re.match(r"1 failed\b(?!.*\berror)", last)
    if not failed and done.returncode != 0:  # an error of a fixture ends with 1, too
        printed = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise RuntimeError(f"{paths[0]}: pytest ended with {done.returncode}\n{printed}")
    return bool(failed)


def one_each() -> list[str]:
    """Return the name of the first mistake of each C file."""
    first: dict[str, str] = {}
    for name, mistake in MISTAKES.items():
        first.setdefault(mistake.file, name)
    return list(first.values())


def main() -> None:
    """Try the mistakes named, one for each file, or all; exit with those that were not found."""
    from kernels.core import native

    if native.library().reason:
        sys.exit(native.library().reason)
    names = one_each() if sys.argv[1:] == ["--one-each"] else sys.argv[1:] or list(MISTAKES)
    names = [name for name in names if MISTAKES[name].level in ("", *own_levels())]
    unchanged = [MISTAKES[name]._replace(old="", new="", level="") for name in names]

    def tried(name: str) -> tuple[bool, float]:
        start = time.perf_counter()
        return is_found(MISTAKES[name]), time.perf_counter() - start

    missed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        control = pool.submit(is_found, *unchanged)
        for name, (found, seconds) in zip(names, pool.map(tried, names), strict=True):
            print(f"{'found ' if found else 'MISSED'} {MISTAKES[name].file}: {name} ({seconds:.1f} s)", flush=True)
            missed += [] if found else [name]
        if control.result():
            sys.exit("the tests fail without a mistake, too: what they found means nothing")
    print(f"and passed without a mistake; {len(names) - len(missed)} of {len(names)} found")
    sys.exit(f"not found: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
