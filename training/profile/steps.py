"""The time of training steps by layer and phase, from the ranges that they enter.

Every nanosecond of a step is in one row: a layer's own time is that of its range without the layers inside it. On a GPU
these are the times of the host's calls, which do not wait for kernels.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass

from backend import profiling, synchronize, threads
from backend.checks import whole
from backend.recording import Event, Recorder
from training.loop.epoch import EPOCH
from training.loop.trainer import RUN, STEP, Trainer

LOADER, LOOP, LOSS, OPTIMIZER = "loader", "loop", "loss", "optimizer"
"""The names of rows that belong to no layer."""

_WITHOUT_LAYER = {"data": (LOADER, "data"), "update": (OPTIMIZER, "update")}
"""The layer and phase of the time of a phase outside of layers; anything else is the loop's."""


@dataclass
class ProfileRow:
    """The time and the operations of one layer in one phase, over all steps.

    Attributes:
        layer: the name in the model, with those of the layers around it; ``loader``, ``optimizer``, or ``loop`` for
            everything else.
        phase: data, forward, backward, update; empty for the loop.
        operations: how many operations it called; those called by another operation are not counted.
        nanoseconds: in its ranges, without those of layers inside it.
        bytes: of the arrays that these operations were given and returned, each counted once an operation: the least
            that memory or caches have to move.
    """

    layer: str
    phase: str
    operations: int = 0
    nanoseconds: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Profile:
    """Recorded training steps.

    Attributes:
        steps: how many.
        seconds: from the beginning of the first to the end of the last on the device, what lies between them included.
        events: every range of every thread.
    """

    steps: int
    seconds: float
    events: list[Event]

    def rows(self) -> list[ProfileRow]:
        """Return the rows of all steps together, in the order in which they were first entered, the loop's last.

        Raises:
            RuntimeError: the rows do not add up to the steps: a range is missing, or was not left.
        """
        own = {event: event.duration for event in self.events}
        for event in self.events:
            if event.parent is not None:
                own[event.parent] -= event.duration
        rows: dict[tuple[str, str], ProfileRow] = {}
        for event in self.events:
            if _is_in_step(event):
                key = _place(event)
                row = rows.setdefault(key, ProfileRow(*key))
                row.nanoseconds += own[event]
                if event.kind == "operation" and event.parent is not None and event.parent.kind != "operation":
                    row.operations += 1
                    row.bytes += event.bytes
        taken = self.durations()
        if len(taken) != self.steps or sum(taken) != sum(row.nanoseconds for row in rows.values()):
            raise RuntimeError(f"the ranges of {self.steps} steps do not add up: {len(taken)} steps, {sum(taken)} ns")
        return sorted(rows.values(), key=lambda row: row.layer == LOOP)

    def durations(self) -> list[int]:
        """Return the nanoseconds of each step."""
        return [event.duration for event in self.events if _is_step(event)]

    def other_threads(self) -> dict[tuple[str, str], int]:
        """Return the nanoseconds of the outermost ranges on threads other than the steps', by (thread, name)."""
        main = next((event.thread for event in self.events if _is_step(event)), None)
        found: dict[tuple[str, str], int] = {}
        for event in self.events:
            if event.parent is None and event.thread != main:
                key = event.thread, event.name
                found[key] = found.get(key, 0) + event.duration
        return found


def profile(trainer: Trainer, steps: int, warmup: int) -> Profile:
    """Record ``steps`` training steps after ``warmup`` others, all with full batches: where an epoch has no more of
    them, the next begins.

    The recorded steps are what a GPU's profiler captures (``backend.profiling.capture``).

    Raises:
        TypeError: a number of steps is not a whole number.
        ValueError: there is no step to record.
        NonFiniteError, OutOfMemoryError: as ``training.Trainer.train``.
    """
    steps, warmup = whole("steps", steps, 1), whole("warmup", warmup, 0)
    within = trainer.network.within_memory(trainer.train_loader.largest_batch)
    with threads.single_threaded_blas(), within, closing(_endless(trainer)) as taken:
        _take(taken, warmup)
        synchronize()
        with profiling.capture(), Recorder() as recorder, RUN, EPOCH:
            start = time.perf_counter()
            _take(taken, steps)
            synchronize()
            seconds = time.perf_counter() - start
    return Profile(steps, seconds, recorder.events)


def _endless(trainer: Trainer) -> Generator[int, None, None]:
    full_batches = trainer.train_loader.samples // trainer.train_loader.largest_batch
    for epoch in itertools.count(1):
        with closing(trainer.steps(epoch)) as steps:
            yield from itertools.islice(steps, full_batches)


def _take(steps: Iterable[int], count: int) -> None:
    for _ in itertools.islice(steps, count):
        pass


def _is_step(event: Event) -> bool:
    return event.kind == STEP.kind and event.name == STEP.name


def _is_in_step(event: Event | None) -> bool:
    return event is not None and (_is_step(event) or _is_in_step(event.parent))


def _place(event: Event) -> tuple[str, str]:
    """Return the layer and phase of the time in an event itself."""
    layers: list[Event] = []
    around: Event | None = event
    while around is not None:
        if around.kind == "layer":
            layers.insert(0, around)
        around = around.parent
    if layers:
        return ".".join(layer.name for layer in layers), layers[-1].category
    return _WITHOUT_LAYER.get(event.category, (LOOP, ""))
