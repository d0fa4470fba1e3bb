"""Slices of a batch on the CPU's cores.

NumPy releases the GIL inside its loops, so plain threads compute in parallel. Each works on its own slice with
BLAS held to one thread; otherwise every slice's matrix product would start threads of its own.
How the work is cut never depends on the number of threads, so neither does any result.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

_limit: int | None = None
_executor: ThreadPoolExecutor | None = None
_executor_pid = 0
_inside = threading.local()


def limit() -> int:
    """How many threads share a batch: ``XPNET_THREADS``, or every core this process may run on.

    Raises:
        ValueError: ``XPNET_THREADS`` is not a whole number of at least 1.

    """
    global _limit
    if _limit is None:
        given = os.environ.get("XPNET_THREADS", "")
        if given and not (given.isascii() and given.isdigit() and int(given) > 0):
            raise ValueError(f"XPNET_THREADS is a whole number of at least 1, not {given!r}")
        _limit = int(given) if given else _available_cores()
    return _limit


def set_limit(count: int) -> None:
    """Sets how many threads share a batch from now on.

    Raises:
        ValueError: ``count`` is less than 1.

    """
    global _limit, _executor
    if count < 1:
        raise ValueError(f"at least 1 thread is needed, not {count}")
    _limit = count
    if _executor is not None:
        _executor.shutdown(wait=False)
        _executor = None


def run(function: Callable[[int], Any], count: int) -> None:
    """Calls ``function(0)`` … ``function(count - 1)``, shared among the threads, and waits for all.

    The calls must be independent: they run in any order. A call from inside another runs its own in turn.
    The first exception stops the handing out of further calls and is raised here.
    """
    workers = min(limit(), count)
    if workers <= 1 or getattr(_inside, "active", False):
        for index in range(count):
            function(index)
        return
    indices = itertools.count()  # next() of it is atomic: each index goes to one worker

    def work() -> None:
        nonlocal indices
        _inside.active = True
        try:
            while (index := next(indices)) < count:
                function(index)
        except BaseException:
            indices = itertools.count(count)
            raise
        finally:
            _inside.active = False

    with single_threaded_blas():
        helpers = [_pool().submit(work) for _ in range(workers - 1)]
        try:
            work()
        finally:
            for helper in helpers:
                helper.exception()  # waits; buffers must not be touched after this returns
        for helper in helpers:
            helper.result()


_blas_lock = threading.Lock()
_blas_depth = 0
_blas_before: Any = None


@contextmanager
def single_threaded_blas():
    """Holds BLAS to one thread. The setting is the whole process's, so the last to leave puts it back."""
    global _blas_depth, _blas_before
    with _blas_lock:
        if _blas_depth == 0:
            _blas_before = _blas().limit(limits=1, user_api="blas")
        _blas_depth += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_depth -= 1
            if _blas_depth == 0:
                _blas_before.restore_original_limits()
                _blas_before = None


@lru_cache(maxsize=1)
def _blas() -> Any:
    import numpy  # noqa: F401  (its BLAS must be loaded to be found)
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def _pool() -> ThreadPoolExecutor:
    global _executor, _executor_pid
    if _executor is None or _executor_pid != os.getpid():  # threads do not survive a fork
        _executor = ThreadPoolExecutor(max(limit() - 1, 1), thread_name_prefix="xpnet")
        _executor_pid = os.getpid()
    return _executor


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
