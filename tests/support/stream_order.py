"""Record the order of operations on a device with several streams, from the calls and not from times.

An emulated device runs each operation at once and never shows an error of order; a real one shows it rarely. Therefore
the calls that order streams are recorded, and with them the operations that each stream is known to follow.
"""

import contextlib
from dataclasses import dataclass

import cupy

from backend import transfer


@dataclass(frozen=True)
class Copy:
    """A copy to the device: its number among the operations, both addresses, bytes, and the operations it must
    follow."""

    number: int
    source: int
    target: int
    size: int
    stream: int
    follows: frozenset


class StreamOrder:
    """Recorder of events and copies, inside ``recording``.

    An operation is a number; an event is done only after ``finish``.

    Attributes:
        copies: every asynchronous copy to the device, in order.
        waits_of_the_host: number of times that the host waited for an event or stream.
    """

    def __init__(self):
        self.copies = []
        self.waits_of_the_host = 0
        self._operations = 0
        self._known = {}  # stream → the operations that its next one follows
        self._finished = set()
        self._marks = {}  # event → the operations before it

    @contextlib.contextmanager
    def recording(self, monkeypatch):
        """Replace CuPy's events, new streams and copies by recorded ones; the block runs on a new stream."""
        order, copy = self, cupy.cuda.runtime.memcpyAsync

        class Event(cupy.cuda.Event):
            def record(self, stream=None):
                stream = stream or cupy.cuda.get_current_stream()
                order._marks[self] = order._of(stream.ptr)
                super().record(stream)

            @property
            def done(self):
                return self not in order._marks or order._marks[self] <= order._finished

            def synchronize(self):
                order.waits_of_the_host += 1
                super().synchronize()

        class Stream(cupy.cuda.Stream):
            def wait_event(self, event):
                order._known[self.ptr] = order._of(self.ptr) | order._marks[event]
                super().wait_event(event)

            def synchronize(self):
                order.waits_of_the_host += 1
                super().synchronize()

        def recorded_copy(target, source, size, kind, stream):
            assert kind == cupy.cuda.runtime.memcpyHostToDevice
            follows = order._of(stream)
            order.copies.append(Copy(order._add(stream), source, target, size, stream, follows))
            copy(target, source, size, kind, stream)

        with monkeypatch.context() as patch:
            patch.setattr(cupy.cuda, "Event", Event)
            patch.setattr(cupy.cuda, "Stream", Stream)
            patch.setattr(cupy.cuda.runtime, "memcpyAsync", recorded_copy)
            patch.setattr(transfer, "_streams", {})  # an existing stream would not be recorded
            patch.setattr(transfer, "_uploads", transfer._InFlight())
            # With a new pool: the old one would also return memory that earlier tests have freed.
            with Stream(non_blocking=True), cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc):
                yield self
            cupy.cuda.runtime.deviceSynchronize()  # frees what is held until an event is done

    def operation(self):
        """Add an operation on the current stream, such as a kernel that reads or writes an array; return its number."""
        return self._add(cupy.cuda.get_current_stream().ptr)

    def follows(self):
        """Return the operations that the next one on the current stream must follow."""
        return self._of(cupy.cuda.get_current_stream().ptr)

    def finish(self):
        """Mark all operations so far as done."""
        self._finished = set(range(self._operations))

    def _of(self, stream):
        return self._known.get(stream, frozenset())

    def _add(self, stream):
        number = self._operations
        self._operations += 1
        self._known[stream] = self._of(stream) | {number}
        return number
