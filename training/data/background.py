"""Calls that are made in turn on a thread of their own, by programs and threads that may end at any time."""

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

Calls = SimpleQueue[tuple[Future, Callable[..., Any], tuple] | None]


class Background:
    """A thread that makes calls in the order of their submission. It begins with the first of them.

    Unlike an executor of ``concurrent.futures`` it goes on while the interpreter waits for threads of the program to
    end: a training in one of them loses nothing. Where no thread can be had, calls are made as they are submitted.
    """

    _thread: threading.Thread | None = None

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: Calls = SimpleQueue()
        self._is_closed = threading.Event()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Has ``function(*arguments)`` called; the future has its result or its exception."""
        future: Future = Future()
        if self._thread is None:
            _open.add(self)
            # It knows nothing of this object: one that is forgotten is collected, and ends it.
            serve = threading.Thread(target=_serve, args=(self._calls, self._is_closed), name=self._name, daemon=True)
            self._thread = serve
            try:
                serve.start()
            except RuntimeError:  # no thread can be had
                self._is_closed.set()
        if self._is_closed.is_set():
            _call(future, function, arguments)
        else:
            self._calls.put((future, function, arguments))
        return future

    def close(self) -> None:
        """Wait for the call under way, and leave out those that have not begun."""
        self._end()
        thread = self._thread
        # As the interpreter ends, a thread stands still wherever it is: nobody may wait for it.
        if thread is not None and thread.ident is not None and not sys.is_finalizing():
            thread.join()

    def __del__(self) -> None:
        if self._thread is not None:  # an interrupt came just as it was to be closed
            self._end()

    def _end(self) -> None:
        self._is_closed.set()
        self._calls.put(None)


def _serve(calls: Calls, is_closed: threading.Event) -> None:
    while (call := calls.get()) is not None:
        if not is_closed.is_set():
            _call(*call)
        del call  # or it would keep the arrays of the last one alive while this thread waits


def _call(future: Future, function: Callable[..., Any], arguments: tuple) -> None:
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)
        del future  # its exception's traceback holds this frame


_open: weakref.WeakSet[Background] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the threads of loops that the program has left unfinished, before the interpreter takes itself apart."""
    for background in list(_open):
        background.close()
