"""Find and load the library cuBLAS."""

from __future__ import annotations

import ctypes
import importlib
import os
from typing import Any

from backend import cuda_faults
from backend.devices import DeviceError


def load(cupy: Any) -> ctypes.CDLL:
    """Return the cuBLAS that CuPy uses; CuPy looks for it.

    Raises:
        DeviceError: it is not found.
    """
    try:
        getattr(importlib.import_module("cupy_backends.cuda.libs"), "cublas")  # noqa: B009  (loads the library)
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        library = _loaded(f"libcublas.so.{major}") or ctypes.CDLL(_path())
    except (ImportError, OSError) as error:
        raise DeviceError(f"cuBLAS cannot be loaded: {cuda_faults.first_line(error)}") from error
    return library


def _loaded(name: str) -> ctypes.CDLL | None:
    """Return a library that is already in the process, if one of this name is."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    try:
        return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return None


def _path() -> str:
    pathfinder = importlib.import_module("cuda.pathfinder")  # what CuPy itself looks with
    return str(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
