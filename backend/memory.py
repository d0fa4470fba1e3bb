"""Running out of memory: said with the figures that help, and survived.

CuPy says what was asked for; NumPy too. What else there is to know (how much is held, the largest block to be had, what
to lower) is added here, and what the failed computation holds is let go, so that a smaller one can follow.
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
"""The status that means exhausted memory in CuPy's errors that are no MemoryError: pinned memory, a kernel's local
memory and cuBLAS's workspace do not come from its pool.
"""


class OutOfMemoryError(MemoryError):
    """Memory, of the device or of the host, is exhausted; the message has what was asked for and held, and what to
    lower. The computation that failed holds nothing any more: a smaller one can follow in the same process.
    """


class guard:  # noqa: N801  (reads as a statement: `with memory.guard(…):`)
    """Turns exhaustion of memory inside a ``with`` into ``OutOfMemoryError``.

    Whatever library reports it: CuPy, CUDA, cuBLAS, NumPy or Python. Arrays live as long as the traceback that leads to
    them, so the traceback of the failed calls goes on as text alone. Without an error a guard costs a microsecond.

    Args:
        lower: tells what could be made smaller, and how large it is now; called only if needed.
        release: lets go of what a failed computation leaves behind elsewhere than in local variables.
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
        if not isinstance(error, OutOfMemoryError):  # else another guard, inside this one, has told
            told = OutOfMemoryError(f"{_figures(error)}; to need less: {self._lower()}")
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
    """The error that was told of and its traceback, as text."""

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
    if not _of_device(error):
        used, idle = workspace.held_bytes()
        return f"{said}; recycled buffers hold {used:,} bytes in use and {idle:,} idle"
    import cupy

    pool = cupy.get_default_memory_pool()
    used, idle, limit = pool.used_bytes(), pool.free_bytes(), pool.get_limit()
    free, total = cupy.cuda.runtime.memGetInfo()
    limited = f" under its limit of {limit:,}" if limit else ""
    return (
        f"{said}; CuPy's pool holds {used:,} bytes in use and {idle:,} idle{limited}; "
        f"{current_device()} has {free:,} bytes free of {total:,}; "
        f"the largest block to be had is {_largest_block(total):,} bytes"
    )


def _largest_block(total: int) -> int:
    """The most bytes that an array could still have, to 0.4 %: found by asking CuPy's allocator, which heeds the
    pool's limit and the gaps between arrays.
    """
    import cupy

    had, refused = 0, total + 1
    while refused - had > max(512, had >> 8):  # 512: what CuPy rounds up to
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
    """Hands idle memory back: not all that allocates can use what a pool keeps."""
    workspace.clear()
    synchronize()  # so that batches on their way have arrived, and are held no longer
    transfer.let_go()
    cupy: Any = sys.modules.get("cupy")
    if cupy is not None and current_device().kind == "cuda":
        cupy.get_default_memory_pool().free_all_blocks()
