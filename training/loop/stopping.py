"""Stop a training on Ctrl-C, SIGTERM, or SIGHUP from a closed terminal, between two steps.

The command line installs handlers of all three. In a program that has Python's own handler, ``Trainer.train`` holds
Ctrl-C back to the end of the step, since an interrupt in the middle of an update would leave half of it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal has told this program to end. ``exit_code`` is the shell's: 130, 143 or 129."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        self.name = "" if number == signal.SIGINT else signal.Signals(number).name


class _Handlers:
    """Handler of the signals.

    Args:
        ends_process: a second signal ends the process, as a kill does; else it raises at once.
    """

    def __init__(self, ends_process: bool) -> None:
        self.ends_process = ends_process
        self.received: int | None = None
        self.is_pending = False  # received, and not yet raised
        self.deferred = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if self.ends_process:
                os._exit(128 + number)
            self.deferred = 0
        self.received, self.is_pending = number, True
        if not self.deferred:
            self.check()

    def check(self) -> None:
        if self.received is not None and self.is_pending:
            self.is_pending = False
            raise Interrupted(self.received)


_handlers: _Handlers | None = None


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise ``Interrupted`` on the first signal inside a ``with``; end the process at once and silently on the second.

    A signal that is ignored, as under ``nohup``, stays ignored. The previous handlers are restored at the end. Outside
    the main thread, where Python cannot set handlers, nothing changes.
    """
    global _handlers
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, _handlers = _handlers, _Handlers(ends_process=True)
    before: dict[int, Any] = {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, _handlers)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _handlers = outer


@contextmanager
def deferred() -> Iterator[None]:
    """Hold the first signal back until ``check`` is called: nothing inside the ``with`` is interrupted half-way.

    A signal still pending at the end is raised there, unless another exception ends the block.
    """
    handlers = _handlers
    if handlers is None:
        yield
        return
    handlers.deferred += 1
    try:
        yield
    finally:
        handlers.deferred = max(0, handlers.deferred - 1)  # a second signal has ended all of them
    check()  # here, so that no signal comes after it and before a handler raises again


@contextmanager
def whole_steps() -> Iterator[None]:
    """Hold Ctrl-C back until ``check`` where Python's own handler would interrupt anywhere. A second one is not held.

    Nothing changes where other handlers are installed, as by ``signals_interrupt``, or outside the main thread.
    """
    global _handlers
    is_main = threading.current_thread() is threading.main_thread()
    if _handlers is not None or not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _handlers = handlers = _Handlers(ends_process=False)
    handlers.deferred = 1  # to the end, so that the handler is replaced in any case
    try:
        signal.signal(signal.SIGINT, handlers)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _handlers = None
    handlers.check()


def check() -> None:
    """Raise ``Interrupted`` if a signal has arrived, once; in the main thread only."""
    if _handlers is not None and threading.current_thread() is threading.main_thread():
        _handlers.check()


def pending() -> int:
    """Return the number of a signal that ``check`` would raise, or 0; in other threads than the main one always 0."""
    is_main = threading.current_thread() is threading.main_thread()
    return _handlers.received or 0 if _handlers is not None and _handlers.is_pending and is_main else 0


def stop(number: int) -> None:
    """Raise ``Interrupted`` by a signal, which this process or another that it works with has received."""
    if _handlers is not None:
        _handlers.received, _handlers.is_pending = number, False
    raise Interrupted(number)
