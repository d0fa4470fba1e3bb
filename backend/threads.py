"""Slices of a batch on the CPU's cores.

NumPy releases the GIL inside its loops, so plain threads compute in parallel. Each works on its own slice with
BLAS held to one thread; otherwise every slice's matrix product would start threads of its own.
Work whose result depends on how it is cut is cut alike for every number of threads, so no result depends on that.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

from backend import checks

_limit: int | None = None
_queue: SimpleQueue[_Job | None] | None = None
_helpers = 0
_pid = 0
_start_lock = threading.Lock()
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
        TypeError: ``count`` is no number.
        ValueError: ``count`` is no whole number of at least 1.
    """
    global _limit, _queue
    _limit = checks.whole("count", count, 1)
    with _start_lock:
        if _queue is not None and _pid == os.getpid():
            for _ in range(_helpers):
                _queue.put(None)
        _queue = None


def run(function: Callable[[int], Any], count: int) -> None:
    """Calls ``function(0)`` … ``function(count - 1)``, shared among the threads, and waits for all.

    The calls must be independent: they run in any order, in copies of the caller's context, ``numpy.errstate`` in it. A
    call from inside another runs its own in turn.
    The first exception stops the handing out of further calls and is raised here.
    """
    if getattr(_inside, "active", False):
        for index in range(count):
            function(index)
        return
    with single_threaded_blas():  # also for a single call: BLAS with several threads sums in another order
        if count == 1:
            function(0)
            return
        helpers = max(min(limit(), count) - 1, 0)
        job = _Job(function, count, helpers)
        inbox = _inbox(helpers)
        for _ in range(helpers):
            inbox.put(job)
        job.work()
        job.wait()
    error, job.error = job.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback holds this frame: the cycle would keep the buffers of the failed call


class _Job:
    """Calls that several threads share. ``next`` of a count and ``pop`` of a list are atomic: no lock is needed."""

    def __init__(self, function: Callable[[int], Any], count: int, helpers: int) -> None:
        self.function = function
        self.count = count
        self.indices = itertools.count()
        self.invitations = [contextvars.copy_context() for _ in range(helpers)]  # one at a time may enter a context
        self.helpers = helpers
        self.finished: SimpleQueue[None] = SimpleQueue()
        self.error: BaseException | None = None

    def work(self) -> None:
        """Takes calls until none is left; an exception is kept and leaves none."""
        _inside.active = True
        try:
            while (index := next(self.indices)) < self.count:
                self.function(index)
        except BaseException as error:
            self.indices = itertools.count(self.count)
            self.error = self.error or error
        finally:
            _inside.active = False

    def help(self) -> None:
        """A helper's part, unless the job was over before it came."""
        context = self._take_invitation()
        if context is not None:
            context.run(self.work)
            self.finished.put(None)

    def wait(self) -> None:
        """Waits for the helpers that began; those that have not are not waited for."""
        while self._take_invitation() is not None:
            self.helpers -= 1
        for _ in range(self.helpers):
            self.finished.get()

    def _take_invitation(self) -> contextvars.Context | None:
        try:
            return self.invitations.pop()
        except IndexError:
            return None


_blas_lock = threading.Lock()
_blas_depth = 0
_blas_before: Any = None


class single_threaded_blas:  # noqa: N801  (reads as a statement: `with single_threaded_blas():`)
    """Holds BLAS to one thread. The setting is the whole process's, so the last to leave puts it back.

    Inside another it costs next to nothing: a loop of many small products holds it around the loop.
    """

    def __enter__(self) -> None:
        global _blas_depth, _blas_before
        with _blas_lock:
            if _blas_depth == 0:
                _let_any_thread_set_blas()
                _blas_before = _blas().limit(limits=1, user_api="blas")
            _blas_depth += 1

    def __exit__(self, *exc_info: object) -> None:
        global _blas_depth, _blas_before
        with _blas_lock:
            _blas_depth -= 1
            if _blas_depth == 0:
                _let_any_thread_set_blas()
                _blas_before.restore_original_limits()
                _let_any_thread_set_blas()
                _blas_before = None


def _let_any_thread_set_blas() -> None:
    """threadpoolctl 3.8 lets the first thread that sets OpenBLAS keep the say; the last to leave may be another."""
    import threadpoolctl

    let_go = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if let_go is not None:
        let_go(force=True)


@lru_cache(maxsize=1)
def _blas() -> Any:
    import numpy  # noqa: F401  (its BLAS must be loaded to be found)
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def _inbox(helpers: int) -> SimpleQueue[_Job | None]:
    """The queue that the helper threads serve, after seeing to it that there are so many."""
    global _queue, _helpers, _pid
    with _start_lock:
        if _queue is None or _pid != os.getpid():  # threads do not survive a fork
            _queue, _helpers, _pid = SimpleQueue(), 0, os.getpid()
        while _helpers < helpers:
            threading.Thread(target=_serve, args=(_queue,), name="xpnet", daemon=True).start()
            _helpers += 1
        return _queue


def _serve(queue: SimpleQueue[_Job | None]) -> None:
    while (job := queue.get()) is not None:
        job.help()
        del job  # or it would keep the arrays of the last call alive while this thread waits


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
