"""Share slices of a batch among the CPU's cores, with BLAS limited to one thread.

NumPy releases the GIL inside its loops, so plain threads compute in parallel. Each works on its own slice; without the
limit, every slice's matrix product would start more threads. Work whose result depends on how it is cut is cut alike
for every number of threads, so no result depends on that.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

from backend import checks
from backend.active import current_device
from backend.forking import held_while_forking

_limit: int | None = None
_queue: SimpleQueue[tuple[_Job, int] | None] | None = None
_helpers = 0
_pid = 0
_start_lock = held_while_forking(threading.Lock())
_inside = threading.local()


def limit() -> int:
    """Return how many threads share a batch: ``XPNET_THREADS``, or every core that this process may run on.

    Raises:
        ValueError: ``XPNET_THREADS`` is not a whole number of at least 1.
    """
    global _limit
    if _limit is None:
        _limit = _initial_limit()
    return _limit


def _initial_limit() -> int:
    given = os.environ.get("XPNET_THREADS", "")
    if given and not (given.isascii() and given.isdigit() and int(given) > 0):
        raise ValueError(f"XPNET_THREADS is a whole number of at least 1, not {given!r}")
    if given:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    """Call ``function(item)`` for each item, shared among the threads, with BLAS limited to one thread, and wait.

    Its errors and order are those of ``spread``.
    """
    with single_threaded_blas():  # also for a single call: BLAS with several threads sums in another order
        spread(function, items)


def spread(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    """Call ``function(item)``, which calls no BLAS, for each item, shared among the threads, and wait for all.

    The calls must be independent: they run in any order, in copies of the caller's context (with its
    ``numpy.errstate``). A call from inside another runs its items in turn. The first exception stops the handing out of
    further items and is raised here.
    """
    helpers = 0 if is_sharing() else min(limit(), len(items)) - 1
    if helpers > 0:
        _share(function, items, helpers)
        return
    for item in items:
        function(item)


def is_sharing() -> bool:
    """Return whether this thread computes an item of ``spread``, whose calls are not shared again."""
    return getattr(_inside, "active", False)


def _share(function: Callable[[Any], Any], items: Sequence[Any], helpers: int) -> None:
    """Do the work of ``run`` with the help of as many threads as ``helpers``."""
    job = _Job(function, items, helpers)
    inbox = _inbox(helpers)
    try:
        for number in range(min(helpers, _helpers)):  # fewer where threads could not be started
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


_blas_lock = held_while_forking(threading.RLock())  # reentrant: a finalizer may take it while it is held
_holding_threads: set[int] = set()
_blas_before: list[int] = []


class single_threaded_blas:  # noqa: N801  (reads as a statement: `with single_threaded_blas():`)
    """Limit BLAS to one thread. The setting is that of the process: the last thread to exit restores it.

    Inside another context of the same thread, and on a GPU, it does nothing and costs next to nothing: put one around
    a loop of many small products.

    An interrupt can come between any two steps, also before and after the block. Therefore the old setting is stored
    before it is changed and dropped after it is restored, exiting twice has the effect of once, and an object that was
    not exited does so when it is collected.
    """

    _thread: int | None = None  # the thread for which this object limits BLAS

    def __enter__(self) -> None:
        thread = threading.get_ident()
        if thread in _holding_threads or current_device().kind != "cpu":  # a GPU's step calls no BLAS of the host
            return
        with _blas_lock:
            try:
                self._thread = thread
                _holding_threads.add(thread)
                if len(_holding_threads) == 1:
                    _limit_blas()
            except BaseException:
                self._leave()
                raise

    def __exit__(self, *exc_info: object) -> None:
        if self._thread is not None:
            try:
                self._leave()
            except BaseException:
                self._leave()
                raise

    def __del__(self) -> None:
        if self._thread is not None and not sys.is_finalizing():
            self._leave()

    def _leave(self) -> None:
        with _blas_lock:
            if self._thread is not None:
                _holding_threads.discard(self._thread)
            if not _holding_threads:
                _restore_blas()
            self._thread = None


def _limit_blas() -> None:
    if not _blas_before:  # else an interrupt came while it was restored
        _blas_before[:] = [library.num_threads for library in _blas()]
    _set_blas([1] * len(_blas_before))


def _restore_blas() -> None:
    if _blas_before:
        _set_blas(_blas_before)
        _blas_before.clear()


def _set_blas(counts: list[int]) -> None:
    """Set the number of threads of each BLAS library.

    threadpoolctl 3.8 lets only the first thread that sets OpenBLAS set it again, but another may exit last.
    """
    import threadpoolctl

    let_any_thread_set = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", lambda force: None)
    let_any_thread_set(force=True)
    for library, count in zip(_blas(), counts, strict=True):
        library.set_num_threads(count)
    let_any_thread_set(force=True)


@lru_cache(maxsize=1)
def _blas() -> list[Any]:
    """Return the BLAS libraries of this process, NumPy's among them."""
    import numpy  # noqa: F401  (its BLAS must be loaded to be found)
    import threadpoolctl

    return [library for library in threadpoolctl.ThreadpoolController().lib_controllers if library.user_api == "blas"]
