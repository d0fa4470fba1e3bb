"""Ranges of ``backend.profiling`` as a list of events: what ran when, on which thread, inside what."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from backend import profiling


@dataclass(eq=False)
class Event:
    """A range that was entered and left.

    Attributes:
        name, category, kind: of the ``backend.profiling.Range``; an empty category is that of ``parent``.
        thread: its name.
        parent: the event it is inside of, on the same thread.
        begin, end: readings of the recorder's clock, nanoseconds where none was given.
        shapes: of the arrays it was given.
        bytes: of these and of those it returned, each counted once.
    """

    name: str
    category: str
    kind: str
    thread: str
    parent: Event | None
    begin: int = 0
    end: int = -1
    shapes: tuple[tuple[int, ...], ...] = ()
    bytes: int = 0

    @property
    def duration(self) -> int:
        """Return by how much the clock went on."""
        return self.end - self.begin


class Recorder:
    """Records the ranges of all threads inside ``with``, one recording each.

    A range that was entered before is not in it; one that is left after ends with the recording.

    Args:
        clock: read as ranges begin and end: a clock, or a counter that only grows.

    Attributes:
        events: in the order of their beginnings on each thread.
    """

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock = clock
        self.events: list[Event] = []
        self._entered = self.events
        self._local = threading.local()
        self._listening: AbstractContextManager[None] | None = None

    def __enter__(self) -> Recorder:
        self._listening = profiling.listen(self)
        self._listening.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._listening is not None
        self._listening.__exit__(None, None, None)
        self.events = list(self._entered)  # what another thread is just entering is not in it
        now = self._clock()
        for event in self.events:
            event.end = now if event.end < 0 else event.end

    def push(self, entered: profiling.Range, about: Any) -> None:
        stack = self._stack()
        parent = stack[-1][0] if stack else None
        category = entered.category or (parent.category if parent else "")
        event = Event(entered.name, category, entered.kind, threading.current_thread().name, parent)
        given = profiling.arrays_in(about)
        event.shapes = tuple(tuple(array.shape) for array in given)
        event.bytes = sum(array.nbytes for array in given)
        stack.append((event, {id(array) for array in given}))
        event.begin = self._clock()  # what recording takes is the surrounding range's time
        self._entered.append(event)

    def pop(self, results: Any) -> None:
        now = self._clock()
        stack = self._stack()
        if not stack:
            return
        event, given = stack.pop()
        event.end = now if event.end < 0 else event.end
        event.bytes += sum(array.nbytes for array in profiling.arrays_in(results) if id(array) not in given)

    def _stack(self) -> list[tuple[Event, set[int]]]:
        """The events under way on this thread, each with the arrays it was given: by identity, so that none lives
        longer than unrecorded."""
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack
