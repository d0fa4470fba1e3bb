"""Convert out-of-memory errors into one exception that reports usage, and free what the failed step held.

CuPy and NumPy report the requested size. The exception adds the memory in use, the largest available block, and what to
reduce; and the memory of the failed computation is released, so that a smaller one can follow.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from backend import transfer, workspace
from backend.active import current_device
from backend.arrays import synchronize

_STATUS = {"CUDARuntimeError": 2, "CUDADriverError": 2, "CUBLASError": 3}
"""The status of exhausted memory in CuPy's errors other than MemoryError: for pinned memory, a kernel's local memory
and cuBLAS's workspace, which do not come from CuPy's pool.
"""


class OutOfMemoryError(MemoryError):
    """Memory of the device or the host is exhausted; the message says how much was requested and is in use, and what to
    reduce. The failed computation's memory is released: a smaller one can follow in the same process.

    Attributes:
        is_advised: whether the message says what to reduce; a guard around the failed call adds that.
    """

    is_advised = False


def exhausted(said: str) -> OutOfMemoryError:
    """Return the error for a device's exhausted memory: ``said``, and how much is in use and to be had."""
    return OutOfMemoryError(f"{said}; {_figures_of_device()}")


class guard:  # noqa: N801  (reads as a statement: `with memory.guard(…):`)
    """Context in which exhausted memory raises ``OutOfMemoryError``.

    Any library may report it: CuPy, CUDA, cuBLAS, NumPy or Python. A traceback keeps arrays alive, so the traceback of
    the failed calls is kept as text only. Without an error a guard costs a microsecond.

    Args:
        lower: returns a text that says what could be reduced, and its size; called only after an error.
        release: releases what a failed computation leaves behind outside of local variables.
    """

    def __init__(self, lower: Callable[[], str], release: Callable[[], None] | None = None) -> None:
        self._lower = lower
        self._release = release

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or not _is_exhaustion(error):
            return
        told = cause = None
        if not getattr(error, "is_advised", False):  # else an inner guard has converted the error
            told = OutOfMemoryError(f"{_figures(error)}; to need less: {self._lower()}")
            told.is_advised = True
            cause = _Origin("".join(traceback.format_exception(type(error), error, trace)))
            error.__traceback__ = error.__cause__ = error.__context__ = None
        traceback.clear_frames(trace)
        if self._release is not None:
            self._release()
        _give_back()
        del error, trace  # this call becomes part of the new traceback
        if told is not None:
            raise told from cause


class _Origin(Exception):  # noqa: N818  (never raised: it is the cause that Python shows)
    """The original error and its traceback, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _is_exhaustion(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # By name: to look up the class of cuBLAS's errors would load cuBLAS.
    return _of_device(error) and getattr(error, "status", None) == _STATUS.get(type(error).__name__, -1)


def _of_device(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("cupy", "cupy_backends")


def _figures(error: BaseException) -> str:
    said = (str(error).strip().splitlines() or ["out of memory"])[0].rstrip(".")
    if isinstance(error, OutOfMemoryError):  # of ``exhausted``
        return said
    if _of_device(error):
        return f"{said}; {_figures_of_device()}"
    used, idle = workspace.held_bytes()
    return f"{said}; recycled buffers hold {used:,} bytes in use and {idle:,} idle"


def _figures_of_device() -> str:
    import cupy

    pool = cupy.get_default_memory_pool()
    used, idle, limit = pool.used_bytes(), pool.free_bytes(), pool.get_limit()
    free, total = cupy.cuda.runtime.memGetInfo()
    limited = f" under its limit of {limit:,}" if limit else ""
    largest = _largest_block(total)
    pool.free_all_blocks()  # also what was asked for to find it: small arrays in it would keep it from being free
    return (
        f"CuPy's pool holds {used:,} bytes in use and {idle:,} idle{limited}; "
        f"{current_device()} has {free:,} bytes free of {total:,}; "
        f"the largest block to be had is {largest:,} bytes"
    )


def _largest_block(total: int) -> int:
    """Return the most bytes that an array could still have, to 0.4 %, by asking CuPy's allocator, which includes the
    pool's limit and the gaps between arrays.
    """
    import cupy

    had, refused = 0, total + 1
    while refused - had > max(512, had >> 8):  # 512: CuPy rounds sizes up to it
        size = (had + refused) // 2
        try:
            cupy.cuda.alloc(size)
        except Exception as error:
            if not _is_exhaustion(error):
                raise
            refused = size
        else:
            had = size
    return had


def _give_back() -> None:
    """Return idle memory of the pool, which other allocators cannot use."""
    workspace.clear()
    synchronize()  # so that copies of batches are done, and release their memory
    transfer.let_go()
    cupy: Any = sys.modules.get("cupy")
    if cupy is not None and current_device().kind == "cuda":
        cupy.get_default_memory_pool().free_all_blocks()
