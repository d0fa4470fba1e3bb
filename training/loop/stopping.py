"""How a program ends when it is told to: by Ctrl-C, by SIGTERM, or by SIGHUP as its terminal goes.

Only the command line installs handlers. A program that uses the library gets Python's own: a KeyboardInterrupt wherever
it is.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from training.loop.callbacks import Callback

if TYPE_CHECKING:
    from training.loop.callbacks import EpochResult
    from training.loop.trainer import Trainer

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal that tells this program to end. ``exit_code`` is the shell's: 130, 143, 129."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        self.name = "" if number == signal.SIGINT else signal.Signals(number).name


class _Handlers:
    def __init__(self) -> None:
        self.received: int | None = None
        self.is_pending = False  # received, and nobody has been told
        self.deferred = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:  # once was not enough: whatever is under way is left, as by a kill
            os._exit(128 + number)
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
    """Makes the first signal an ``Interrupted``, and the second the end of the process, at once and silently.

    A signal that is ignored, as by ``nohup``, stays so. What the handlers were before, they are again after it. In
    another thread than the main one, where Python sets no handlers, it changes nothing.
    """
    global _handlers
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, _handlers = _handlers, _Handlers()
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
    """Lets the first signal wait until ``check`` asks for it: nothing inside is interrupted half-way.

    One that nobody has asked about by the end is raised there, unless another exception ends the block.
    """
    handlers = _handlers
    if handlers is None:
        yield
        return
    handlers.deferred += 1
    try:
        yield
        check()
    finally:
        handlers.deferred -= 1


def check() -> None:
    """Raises ``Interrupted`` where a signal has come, once."""
    if _handlers is not None:
        _handlers.check()


class StopOnSignal(Callback):
    """Ends a training between two steps once a signal has come; an epoch that has ended is counted."""

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        check()

    def on_evaluation_step(self, trainer: Trainer) -> None:
        check()

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        check()
