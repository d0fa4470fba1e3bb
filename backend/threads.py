"""Share slices of a batch among the CPU's cores.

NumPy releases the GIL inside its loops, so plain threads compute in parallel. Each works on its own slice with
BLAS held to one thread; otherwise every slice's matrix product would start threads of its own.
Work whose result depends on how it is cut is cut alike for every number of threads, so no result depends on that.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from backend import checks
from backend.blas_threads import single_threaded_blas

__all__ = ["limit", "run", "set_limit", "single_threaded_blas"]

_limit: int | None = None
_queue: SimpleQueue[tuple[_Job, int] | None] | None = None
_helpers = 0
_pid = 0
_start_lock = threading.Lock()
_inside = threading.local()


def limit() -> int:
    """Return how many threads share a batch: ``XPNET_THREADS``, or every core that this process may run on.

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
    """Set how many threads share a batch from now on.

    Raises:
        TypeError: ``count`` is not a number.
        ValueError: ``count`` is not a whole number of at least 1.
    """
    global _limit, _queue
    _limit = checks.whole("count", count, 1, 1 << 16)
    with _start_lock:
        if _queue is not None and _pid == os.getpid():
            for _ in range(_helpers):
                _queue.put(None)
        _queue = None


def run(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    """Call ``function(item)`` for each item, shared among the threads, and wait for all.

    The calls must be independent: they run in any order, in copies of the caller's context (with its
    ``numpy.errstate``). A call from inside another runs its items in turn. The first exception stops the handing out of
    further items and is raised here.
    """
    if getattr(_inside, "active", False):
        for item in items:
            function(item)
        return
    with single_threaded_blas():  # also for a single call: BLAS with several threads sums in another order
        helpers = min(limit(), len(items)) - 1
        if helpers <= 0:
            for item in items:
                function(item)
            return
        job = _Job(function, items, helpers)
        inbox = _inbox(job.helpers)
        try:
            for number in range(min(job.helpers, _helpers)):  # fewer where threads could not be started
                inbox.put((job, number))
            job.work()
        except BaseException:  # an interrupt between two calls
            job.stop()
            raise
        finally:
            _inside.active = False
            job.wait()
    error, job.error = job.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback holds this frame: the cycle would keep the buffers of the failed call


class _Job:
    """Calls that several threads share. ``next`` of a count and ``setdefault`` are atomic: no lock is needed.

    An interrupt may come between any two steps of the caller's thread: what it does here can be done again.
    """

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any], helpers: int) -> None:
        self.function = function
        self.items = items
        self.count = len(items)
        self.indices = itertools.count()
        self.helpers = helpers
        self.contexts = [contextvars.copy_context() for _ in range(helpers)]  # one at a time may enter a context
        self.owners: dict[int, bool] = {}  # of a helper's part: True if the helper took it, False if it came too late
        self.finished: SimpleQueue[None] = SimpleQueue()
        self.ended: list[int] = []
        self.error: BaseException | None = None

    def work(self) -> None:
        """Take items until none is left; keep an exception, after which none is left."""
        try:
            _inside.active = True
            while (index := next(self.indices)) < self.count:
                self.function(self.items[index])
        except BaseException as error:
            self.stop()
            self.error = self.error or error
        finally:
            _inside.active = False

    def stop(self) -> None:
        """Leave no item to be taken."""
        self.indices = itertools.count(self.count)

    def help(self, number: int) -> None:
        """Do a helper's part, unless the job was over before it came."""
        if self.owners.setdefault(number, True):
            self.contexts[number].run(self.work)
            self.ended.append(number)
            self.finished.put(None)

    def wait(self) -> None:
        """Wait for the helpers that have begun."""
        try:
            for _ in range(sum(self._begun())):
                self.finished.get()
        except BaseException:  # an interrupt: they may still write into the caller's arrays
            self.stop()
            while len(self.ended) < sum(self._begun()):
                time.sleep(0.0005)
            raise

    def _begun(self) -> list[bool]:
        return [self.owners.setdefault(number, False) for number in range(self.helpers)]


def _inbox(helpers: int) -> SimpleQueue[tuple[_Job, int] | None]:
    """Return the queue that the helper threads serve, after starting as many as are missing and can be started."""
    global _queue, _helpers, _pid
    with _start_lock:
        if _queue is None or _pid != os.getpid():  # threads do not survive a fork
            _queue, _helpers, _pid = SimpleQueue(), 0, os.getpid()
        while _helpers < helpers:
            thread = threading.Thread(target=_serve, args=(_queue,), name="xpnet", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread can be started: the others do the work
                break
            _helpers += 1
        return _queue


def _serve(queue: SimpleQueue[tuple[_Job, int] | None]) -> None:
    while (part := queue.get()) is not None:
        job, number = part
        job.help(number)
        del part, job  # or they would keep the arrays of the last call alive while this thread waits


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
