"""Numbers that the host computes anew for every step: kernel arguments in an eager step, device memory in a graph.

A learning rate, Adam's corrections and the positions of random streams differ from step to step, and a captured kernel
keeps the arguments of its capture. So code that computes such numbers hands them to its kernels by ``numbers``:

    rate, eps = numbers(lambda: (self.rate(self.t + 1), self.eps), "float32")
    repeat(self._count_step)

Outside of a capture that is a call of the function. In a capture the numbers become device scalars, whose values are
computed by the same function before every replay, and uploaded together by one copy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy

from backend.types import Array

CAPACITY = 1 << 16
"""Bytes of numbers in one graph, at most: about 2,000 dropout layers."""

capture_lock = threading.RLock()
"""Is held while a stream is captured: waiting for the whole device, in another thread, would spoil the capture."""

_ALIGNMENT = 8
_SLOTS = 8


class GraphNumbers:
    """The numbers of one graph. Made by ``backend.graphs.Recorder.capture``.

    They lie in one buffer on the device. Their values go there from a ring of pinned buffers, each of which is written
    again only when its copy is done: the host waits for nothing but a ninth upload under way.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._device = cupy.zeros(CAPACITY, "uint8")
        memory = cupy.cuda.alloc_pinned_memory(CAPACITY * _SLOTS)
        self._ring = numpy.ndarray((_SLOTS, CAPACITY), "uint8", memory)
        self._copied = [cupy.cuda.Event(disable_timing=True) for _ in range(_SLOTS)]
        self._slot = 0
        self._values = numpy.zeros(CAPACITY, "uint8")
        self._used = 0
        self._actions: list[Callable[[], None]] = []

    def add(self, source: Callable[[], Sequence[float]], dtype: Any) -> Array:
        """Return device scalars for what ``source`` computes, as an array of one axis; the values are those of now.

        Raises:
            RuntimeError: there are more numbers than ``CAPACITY``.
        """
        with _not_recording():
            values = numpy.array(source(), dtype)
        begin, end = self._used, self._used + values.nbytes
        if end > CAPACITY:
            raise RuntimeError(f"a graph has at most {CAPACITY:,} bytes of numbers that change from step to step")
        self._used = -(-end // _ALIGNMENT) * _ALIGNMENT
        place = self._values[begin:end].view(values.dtype)
        place[...] = values
        self._actions.append(lambda: place.__setitem__(..., source()))
        array: Array = self._cupy.ndarray(values.shape, values.dtype, self._device.data + begin)
        return array

    def repeat(self, action: Callable[[], None]) -> None:
        """Have ``action`` called before every later replay, in its turn among the sources of numbers."""
        self._actions.append(action)

    def compute(self) -> None:
        """Compute all numbers anew and repeat the actions, in the order of the capture."""
        for action in self._actions:
            action()

    def upload(self, stream: Any) -> None:
        """Start to copy the numbers to the device, in a stream."""
        if not self._used:
            return
        slot, copied = self._ring[self._slot], self._copied[self._slot]
        self._slot = (self._slot + 1) % _SLOTS
        if not copied.done:
            copied.synchronize()
        slot[: self._used] = self._values[: self._used]
        runtime = self._cupy.cuda.runtime
        source, target = slot.ctypes.data, self._device.data.ptr
        runtime.memcpyAsync(target, source, self._used, runtime.memcpyHostToDevice, stream.ptr)
        copied.record(stream)


_recording: ContextVar[GraphNumbers | None] = ContextVar("recording", default=None)


def numbers(source: Callable[[], Sequence[float]], dtype: Any = "float32") -> Any:
    """Return what ``source`` computes; in a capture, device scalars that have what it computes before each replay.

    Args:
        source: takes nothing, returns plain numbers, always as many; may move a counter on, as a random stream's
            position.
        dtype: of the device scalars.
    """
    graph = _recording.get()
    return source() if graph is None else graph.add(source, dtype)


def repeat(action: Callable[[], None]) -> None:
    """Call ``action`` now and, in a capture, before each later replay: for what a step does on the host alone.

    Sources of ``numbers`` and actions are called in the order of the capture.
    """
    action()
    graph = _recording.get()
    if graph is not None:
        graph.repeat(action)


def refuse_capture(what: str) -> None:
    """Raise a RuntimeError in a capture: for what would be right in the first replay, and stale in the next."""
    if _recording.get() is not None:
        raise RuntimeError(f"{what} cannot be captured: every replay would repeat it")


@contextmanager
def recording(graph: GraphNumbers | None) -> Iterator[None]:
    """Have ``numbers`` and ``repeat`` belong to a graph inside a ``with``, in this thread."""
    token = _recording.set(graph)
    try:
        yield
    finally:
        _recording.reset(token)


def _not_recording() -> Any:
    return recording(None)
