"""Interrupts at every moment of the threads' code: BLAS gets its threads back, and the next call is right.

The interpreter handles signals at the begin of a function, after calls and at backward jumps. An exception is raised at
each of these places in turn: in code that limits BLAS, shares work among threads, or controls the loader's thread.
"""

from __future__ import annotations

import dis
import random
import sys
import threading
import time
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from types import FrameType
from typing import Any

import numpy
import threadpoolctl

from backend import threads
from training.data import Loader, background, loader
from training.loop.trainer import Trainer
from training.models import TwoLayerNet
from training.optim.optimizers import SGD

FILES = {module.__file__ for module in (threads, loader, background)}


Trials = Generator[str | None, None, None]


class Injected(BaseException):
    """Replacement of KeyboardInterrupt, which a program could catch by mistake."""


class Injector:
    """Tracer that raises ``Injected`` at the Nth place (0, 1, …) that is passed in ``FILES``; None only counts them.

    Attributes:
        count: places so far.
        where: the place of the exception.
    """

    def __init__(self, number: int | None) -> None:
        self._number = number
        self.count = 0
        self.where = "nowhere"

    def run(self, body: Callable[[], Any]) -> None:
        """Run ``body``, with the exception."""
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # Python 3.12 and later trace opcodes only if this is set
        sys.settrace(self._enter)
        try:
            body()
        except Injected:
            pass
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in FILES or _is_finalizer(frame):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        passed = ""

        def see(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal passed
            if event == "opcode":
                if passed.startswith("CALL") or "JUMP_BACKWARD" in passed or passed in ("", "RESUME", "JUMP_ABSOLUTE"):
                    self._pass(frame)
                passed = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            return see

        return see

    def _pass(self, frame: FrameType) -> None:
        number, self.count = self.count, self.count + 1
        if number == self._number:
            self.where = f"{frame.f_code.co_name}, line {frame.f_lineno}, bytecode {frame.f_lasti}"
            raise Injected


def _is_finalizer(frame: FrameType | None) -> bool:
    """Return whether the interpreter would discard the exception, as it does in ``__del__``."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def run(count: int, seed: int, bodies: Collection[str] = ("hold", "share", "load", "train")) -> Trials:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        places = [(name, number) for name in bodies for number in range(_count(name))]
        random.Random(seed).shuffle(places)
        for name, number in places[:count]:
            yield try_at(name, number)


def try_at(name: str, number: int) -> str | None:
    """Raise an exception at the Nth event of a body; return what is wrong after that, or None."""
    before, others = _blas(), _loader_threads()
    injector = Injector(number)
    injector.run(BODIES[name])
    found = _blas()
    deadline = time.monotonic() + 5
    while (left := _loader_threads() - others) and time.monotonic() < deadline:
        time.sleep(0.001)
    broken = []
    if found != before:
        broken.append(f"BLAS has {found} threads and had {before}")
    if left:
        broken.append("the loader's thread goes on")
    if not numpy.array_equal(_share_work(), _EXPECTED):
        broken.append("the next call gives other numbers")
    if _blas() != before:
        broken.append("after the next call BLAS has other threads")
    return f"{name}, {injector.where}: {'; '.join(broken)}" if broken else None


def _count(name: str) -> int:
    BODIES[name]()  # what is done once is done
    injector = Injector(None)
    injector.run(BODIES[name])
    return injector.count


def _blas() -> list[int]:
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def _loader_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "xpnet-loader"}


def _hold_twice() -> None:
    with threads.single_threaded_blas(), threads.single_threaded_blas():
        pass


def _share_work() -> numpy.ndarray:
    out = numpy.zeros(4)

    def call(index: int) -> None:
        out[index] = index + 1

    threads.run(call, range(4))
    return out


_EXPECTED = numpy.arange(1.0, 5.0)


def _load() -> None:
    images = numpy.arange(12, dtype=numpy.uint8).reshape(12, 1, 1, 1)
    with threads.single_threaded_blas(), closing(Loader(images, images.reshape(12), 4).epoch(0)) as batches:
        for _ in batches:
            pass


def _train() -> None:
    images = numpy.arange(24, dtype=numpy.uint8).reshape(12, 1, 1, 2)
    labels = numpy.arange(12) % 3
    train, test = Loader(images, labels, 6), Loader(images, labels, 12, shuffle=False)
    Trainer(TwoLayerNet(2, 4, 3), train, test, SGD(), epochs=1).train()


BODIES: dict[str, Callable[[], Any]] = {"hold": _hold_twice, "share": _share_work, "load": _load, "train": _train}
