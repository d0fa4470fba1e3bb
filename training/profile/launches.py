"""The kernel launches of this process, counted by CUPTI: a library of the CUDA Toolkit that calls back at each.

Functions, numbers and the beginning of the callback's data are those of CUPTI's headers (``cupti_callbacks.h``, and
``cupti_driver_cbid.h`` and ``cupti_runtime_cbid.h`` for the launches), which keep them from version to version.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend import xp

DRIVER, RUNTIME = 1, 2
LAUNCHES = {
    DRIVER: (307, 442, 477, 478, 514, 515, 652, 653),  # cuLaunchKernel, …CooperativeKernel, cuGraphLaunch, …KernelEx
    RUNTIME: (211, 214, 269, 270, 430, 431),  # cudaLaunchKernel, …CooperativeKernel, …KernelExC
}
"""The calls that launch, by domain; each also with a per-thread default stream."""


class NoCounterError(RuntimeError):
    """Launches cannot be counted; the message says why, and the remedy."""


class _Call(ctypes.Structure):
    """The beginning of ``CUpti_CallbackData``: 0 as a call begins, 1 as it ends."""

    _fields_ = (("site", ctypes.c_int), ("function", ctypes.c_char_p))


_Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.POINTER(_Call))


class LaunchCounter:
    """Counts the launches of all threads inside ``with``; a call returns how many there were so far.

    A graph counts as one launch.

    Raises:
        NoCounterError: as it is entered: CUPTI is not installed, or does not serve this process.
    """

    def __init__(self) -> None:
        self._count = 0
        self._inside = threading.local()
        self._callback = _Callback(self._on_call)  # CUPTI keeps the pointer: this must live as long
        self._subscriber = ctypes.c_void_p()
        self._cupti: Any = None

    def __call__(self) -> int:
        return self._count

    def __enter__(self) -> LaunchCounter:
        self._cupti = _load()
        self._check("cuptiSubscribe", ctypes.byref(self._subscriber), self._callback, None)
        for domain, calls in LAUNCHES.items():
            for call in calls:
                # A call that this version does not know is an error, and cannot be made either.
                self._cupti.cuptiEnableCallback(1, self._subscriber, domain, call)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._check("cuptiUnsubscribe", self._subscriber)

    def _check(self, function: str, *arguments: Any) -> None:
        code = getattr(self._cupti, function)(*arguments)
        if code:
            raise NoCounterError(f"{function} failed with code {code}; end other profilers of this process")

    def _on_call(self, _: Any, domain: int, call: int, data: Any) -> None:
        """Count a call as it begins, but not one that another launching call makes."""
        depth = getattr(self._inside, "depth", 0)
        begins = data.contents.site == 0
        self._count += begins and depth == 0
        self._inside.depth = depth + 1 if begins else depth - 1


def _load() -> Any:
    """Return the library for CuPy's version of CUDA."""
    major = xp.cuda.runtime.runtimeGetVersion() // 1000
    for name in (f"libcupti.so.{major}", *map(str, _places(major))):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    package = "nvidia-cuda-cupti-cu12" if major == 12 else "nvidia-cuda-cupti"
    raise NoCounterError(f"libcupti.so.{major} was not found; remedy: pip install {package}")


def _places(major: int) -> Iterator[Path]:
    """Yield where wheels and the CUDA Toolkit have the library."""
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations or ()) if found else ():
        yield from Path(folder).glob(f"*/lib/libcupti.so.{major}")
    toolkit = Path(os.environ.get("CUDA_PATH", "/usr/local/cuda"))
    yield from toolkit.glob(f"extras/CUPTI/lib64/libcupti.so.{major}")
