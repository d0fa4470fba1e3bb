"""Compile C files and call their functions as those of the C library."""

import ctypes
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from unittest import mock

import pytest

from kernels.core import build_native, native

KERNELS = Path(build_native.__file__).parents[1]


def require_compiler():
    """Skip a test where nothing can be compiled, and say why."""
    pytest.importorskip("ziglang", reason="needs the C compiler of ziglang")
    if build_native.this_target() is None:
        pytest.skip("there are no C kernels for this machine")


def own_levels():
    """Return the names of the levels that this processor can run."""
    target, best = build_native.this_target(), native.library().level
    names = [level.name for level in target.levels] if target else []
    return names[: names.index(best) + 1] if best in names else []


@lru_cache
def compiled(source, folder):
    """Return the library of one C file, built once in a folder."""
    library = Path(folder) / f"{Path(source).stem}.lib"
    target = build_native.this_target()
    assert target is not None
    build_native.build(target, library, files=[Path(source)])
    return ctypes.CDLL(str(library))


@contextmanager
def as_library(handle, level):
    """Let ``native.Function`` find its functions in another library. Give it functions that were not called before."""
    with mock.patch.object(native, "library", return_value=native.Library(handle, level)):
        yield
