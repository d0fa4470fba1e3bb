"""Record the ranges of ``backend.profiling`` as events: name, time, thread and parent."""

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
    """The record of a range.

    Attributes:
        name, category, kind: of the ``backend.profiling.Range``; an empty category is that of ``parent``.
        thread: its name.
        parent: the event it is inside of, on the same thread.
        begin, end: readings of the recorder's clock, by default in nanoseconds.
        shapes: of the arrays it was given.
        bytes: of these and of the returned arrays, each counted once.
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
        """Return end - begin."""
        return self.end - self.begin


class Recorder:
    """Recorder of the ranges of all threads inside a ``with``.

    A range that was entered before is not recorded; one that is still open at the end ends with the recording.

    Args:
        clock: read at the begin and end of ranges: a clock, or a counter that never decreases.

    Attributes:
        events: in the order of their begin on each thread.
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
        self.events = list(self._entered)  # without ranges that another thread is just entering
        now = self._clock()
        for event in self.events:
            event.end = now if event.end < 0 else event.end

    def push(self, entered: profiling.Range, arrays: Any) -> None:
        stack = self._stack()
        parent = stack[-1][0] if stack else None
        category = entered.category or (parent.category if parent else "")
        event = Event(entered.name, category, entered.kind, threading.current_thread().name, parent)
        given = profiling.arrays_in(arrays)
        event.shapes = tuple(tuple(array.shape) for array in given)
        event.bytes = sum(array.nbytes for array in given)
        stack.append((event, {id(array) for array in given}))
        event.begin = self._clock()  # read last: the time of recording counts for the outer range
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
        """Return the open events of this thread, each with the identities of its arrays, which are not kept alive."""
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack
