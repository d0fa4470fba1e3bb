"""Run calls in turn on a background thread, safely if a program or thread ends at any time."""

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
    """A thread that runs calls in the order of their submission. It starts with the first call.

    Unlike an executor of ``concurrent.futures`` it continues while the interpreter waits for the program's threads to
    end, so that a training in one of them is not disturbed. If no thread can be started, calls run as they are
    submitted.
    """

    _thread: threading.Thread | None = None

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: Calls = SimpleQueue()
        self._is_closed = threading.Event()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Schedule ``function(*arguments)``; the future gets its result or its exception."""
        future: Future = Future()
        if self._thread is None:
            _open.add(self)
            # The thread has no reference to this object, which is collected when forgotten, and then ends the thread.
            serve = threading.Thread(target=_serve, args=(self._calls, self._is_closed), name=self._name, daemon=True)
            self._thread = serve
            try:
                serve.start()
            except RuntimeError:  # no thread can be started
                self._is_closed.set()
        if self._is_closed.is_set():
            _call(future, function, arguments)
        else:
            self._calls.put((future, function, arguments))
        return future

    def close(self) -> None:
        """Wait for the current call, and drop calls that have not started."""
        self._end()
        thread = self._thread
        # At the interpreter's end threads are frozen: waiting for one would never end.
        if thread is not None and thread.ident is not None and not sys.is_finalizing():
            thread.join()

    def __del__(self) -> None:
        if self._thread is not None:  # an interrupt came during close()
            self._end()

    def _end(self) -> None:
        self._is_closed.set()
        self._calls.put(None)


def _serve(calls: Calls, is_closed: threading.Event) -> None:
    while (call := calls.get()) is not None:
        if not is_closed.is_set():
            _call(*call)
        del call  # it would keep the last call's arrays alive while this thread waits


def _call(future: Future, function: Callable[..., Any], arguments: tuple) -> None:
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)
        del future  # its exception's traceback holds this frame


_open: weakref.WeakSet[Background] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the threads of unfinished loops before the interpreter shuts down."""
    for background in list(_open):
        background.close()
