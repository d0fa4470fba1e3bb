"""Stop a training on Ctrl-C, SIGTERM, or SIGHUP from a closed terminal.

Only the command line installs handlers. A program that uses the library keeps Python's own, which raise a
KeyboardInterrupt anywhere.
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
    """A signal has told this program to end. ``exit_code`` is the shell's: 130, 143 or 129."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        self.name = "" if number == signal.SIGINT else signal.Signals(number).name


class _Handlers:
    def __init__(self) -> None:
        self.received: int | None = None
        self.is_pending = False  # received, and not yet raised
        self.deferred = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:  # a second signal ends the process as a kill does
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
    """Raise ``Interrupted`` on the first signal inside a ``with``; end the process at once and silently on the second.

    A signal that is ignored, as under ``nohup``, stays ignored. The previous handlers are restored at the end. Outside
    the main thread, where Python cannot set handlers, nothing changes.
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
        check()
    finally:
        handlers.deferred -= 1


def check() -> None:
    """Raise ``Interrupted`` if a signal has arrived, once."""
    if _handlers is not None:
        _handlers.check()


class StopOnSignal(Callback):
    """Callback that ends a training between two steps once a signal has arrived. Epochs that have ended are counted."""

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        check()

    def on_evaluation_step(self, trainer: Trainer) -> None:
        check()

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        check()
