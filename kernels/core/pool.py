"""Keep threads ready to help with C kernels (``pool.c``).

A helper waits in C for ``PATIENCE`` after its last work, so that one kernel's work after another is handed over without
waking a thread, and without the interpreter's lock. Then it sleeps, and is woken by the next kernel that is shared.
"""

from __future__ import annotations

import ctypes
import threading
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

from backend.forking import held_while_forking

PATIENCE = 500
"""Microseconds that a helper looks for work. A training step of ResNet-20 has some 100 between two kernels."""

_calls: SimpleQueue[Any] = SimpleQueue()  # of functions with which sleeping threads begin to help
_helpers = 0
_start_lock = held_while_forking(threading.Lock())


def gather(helpers: int, library: Any) -> None:
    """Have as many threads look for work of a C library: start or wake those that are missing.

    A thread that has just stopped looking may wait for the interpreter's lock: C counts those that look. An interrupt
    may come between any two steps; what it leaves out, the next call does.
    """
    missing = helpers - _looking(library).value - _calls.qsize()
    if missing > 0:
        _wake(helpers, missing, library)


@lru_cache(maxsize=16)
def _looking(library: Any) -> Any:
    """Return the number of threads that look for work, as C keeps it."""
    return ctypes.c_int.in_dll(library, "xpnet_awake")


def _wake(helpers: int, missing: int, library: Any) -> None:
    global _helpers
    for _ in range(missing):
        _calls.put(library.xpnet_help)
    with _start_lock:
        while _helpers < helpers:
            try:
                threading.Thread(target=_serve, args=(_calls,), name="xpnet kernels", daemon=True).start()
            except RuntimeError:  # no thread can be started: the others do the work
                return
            _helpers += 1


def _serve(calls: SimpleQueue[Any]) -> None:
    while True:
        calls.get()(PATIENCE)


def forget() -> None:
    """Begin anew in a process that was forked, in which helpers do not go on."""
    global _calls, _helpers
    _calls, _helpers = SimpleQueue(), 0
