"""Time calls on the active GPU by events that the GPU records."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend import synchronize, xp
from bench.kernels.case import Call

_MOST_WRITES = 64
_COPIED = 256 << 20
"""Bytes to copy for the GPU's bandwidth, unless its L2 cache is larger than a quarter of that."""


@dataclass(frozen=True)
class Samples:
    """Microseconds of a call, in the order taken.

    Attributes:
        late: number of samples that started before the host had launched the whole call, and may include the host's
        time.
    """

    microseconds: list[float]
    late: int

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile."""
        if len(self.microseconds) == 1:
            return (self.microseconds[0],) * 3
        low, median, high = statistics.quantiles(self.microseconds, n=4, method="inclusive")
        return low, median, high


class Stopwatch:
    """Timer of GPU calls. Before every call it writes a buffer of twice the L2 cache, which evicts the call's data.

    The writes are repeated until the host has launched the whole call. Otherwise the time between the events would
    include Python's.
    """

    def __init__(self) -> None:
        self._buffer = xp.empty(max(2 * xp.cuda.Device().attributes["L2CacheSize"], 1 << 20), "uint8")
        self._write(0, 1)
        start = self._event()
        self._write(0, 4)
        end = self._event()
        end.synchronize()
        self._seconds_of_a_write = max(xp.cuda.get_elapsed_time(start, end) / 4e3, 1e-6)

    def samples(self, calls: Sequence[Call], repeats: int) -> Samples:
        """Time ``repeats`` calls one by one, the given ones in turn, after each was called once."""
        for call in calls:
            call()
        synchronize()
        begin = time.perf_counter()
        calls[0]()
        host_seconds = time.perf_counter() - begin
        writes = min(max(math.ceil(2 * host_seconds / self._seconds_of_a_write), 1), _MOST_WRITES)
        microseconds, late = [], 0
        for number in range(repeats):
            synchronize()
            self._write(number, writes)
            start = self._event()
            calls[number % len(calls)]()
            end = self._event()
            is_late = start.done
            end.synchronize()
            late += is_late
            if is_late:
                writes = min(2 * writes, _MOST_WRITES)
            microseconds.append(1e3 * xp.cuda.get_elapsed_time(start, end))
        return Samples(microseconds, late)

    def copy(self, repeats: int, tiny: bool) -> tuple[int, Samples]:
        """Return the bytes that a plain copy moves, read and written, and its samples."""
        size = 1 << 20 if tiny else max(_COPIED, 2 * self._buffer.nbytes)
        source, target = xp.zeros(size, "uint8"), xp.empty(size, "uint8")
        stream = xp.cuda.get_current_stream()
        return 2 * size, self.samples([lambda: target.data.copy_from_device_async(source.data, size, stream)], repeats)

    def _write(self, value: int, times: int) -> None:
        for _ in range(times):
            self._buffer.data.memset_async(value % 256, self._buffer.nbytes)

    @staticmethod
    def _event() -> Any:
        event = xp.cuda.Event()
        event.record()
        return event
