"""Copy arrays asynchronously: batches to the device ahead of their use, results back to the host.

An asynchronous copy must keep its source and destination alive until it completes. This module holds references to
both, with the event that marks completion. (The source of a copy to the host is not held: it is freed in the order of
the stream that copies it.)
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any

import numpy

from backend import profiling
from backend.active import current_device, xp
from backend.arrays import array_module, require_arrays
from backend.types import Array

COPY = profiling.Range("copy", "data")


class HostCopy:
    """A copy to the host that may still be in flight. Made by ``copy_to_host``."""

    def __init__(self, host: numpy.ndarray, event: Any = None) -> None:
        self._host = host
        self._event = event

    @property
    def done(self) -> bool:
        """True once the copy has arrived; never waits."""
        return self._event is None or self._event.done

    def get(self) -> numpy.ndarray:
        """Return the copy; wait for it if it is still in flight."""
        if not self.done:
            self._event.synchronize()
        return self._host


def copy_to_host(array: Array) -> HostCopy:
    """Start to copy ``array`` to the host; do not wait: a loss can be watched without stalling the GPU.

    Examples:
        >>> from backend import copy_to_host, xp
        >>> loss = copy_to_host(xp.float32([0.5]))
        >>> float(loss.get()[0])
        0.5
    """
    require_arrays(array=array)
    library = array_module(array)
    if library is numpy:
        return HostCopy(numpy.array(array))
    host = _downloads.pinned(array.shape, array.dtype, library)
    event = library.cuda.Event(disable_timing=True)
    try:
        library.asnumpy(array, out=host, blocking=False)
    finally:
        event.record()
        _downloads.hold(event, host)
    return HostCopy(host, event)


class DeviceCopy:
    """Arrays that may still be on their way to the device. Made by ``copy_to_device``."""

    def __init__(self, arrays: tuple[Array, ...], arrived: Any = None) -> None:
        self._arrays = arrays
        self._arrived = arrived

    def get(self) -> tuple[Array, ...]:
        """Return the arrays for use on the current stream. The stream waits for them, the host does not."""
        if self._arrived is not None:
            xp.cuda.get_current_stream().wait_event(self._arrived)
        return self._arrays


def empty_pinned(shape: tuple[int, ...], dtype: Any) -> numpy.ndarray:
    """Return an uninitialized host array for ``copy_to_device``: in pinned memory if the active device is a GPU.

    It can be filled by any thread.
    """
    return numpy.empty(shape, dtype) if current_device().kind == "cpu" else _uploads.pinned(shape, dtype, xp)


def copy_to_device(*arrays: numpy.ndarray) -> DeviceCopy:
    """Start to copy arrays of ``empty_pinned`` to the active device; do not wait. A CPU gets the arrays themselves.

    Invariants on a GPU, with *main* for the stream that is current here and in ``DeviceCopy.get``:

    - The device arrays are allocated on main. CuPy's pool hands out freed memory in the order of the stream that it
      was allocated on, so main may still read or write what was there before. The copying stream therefore waits for
      an event that main records after the allocation, and main for one that the copying stream records after
      the copy. Between the two, only the copy touches the memory; before and after, only main.
    - A copy that is dropped must not give its memory back to main or to the pool of pinned memory while it runs: both
      ends are held until its event is done.
    - Pinned memory is written again only after that, and nobody waits for it: where all is in use, more is taken.

    Examples:
        >>> from backend import copy_to_device, empty_pinned
        >>> host = empty_pinned((2,), "float32")
        >>> host[...] = 1, 2
        >>> (x,) = copy_to_device(host).get()
        >>> x.tolist()
        [1.0, 2.0]
    """
    if current_device().kind == "cpu":
        return DeviceCopy(arrays)
    with COPY.of(arrays):
        main, copying = xp.cuda.get_current_stream(), _copying_stream()
        allocated, arrived = xp.cuda.Event(disable_timing=True), xp.cuda.Event(disable_timing=True)
        copies = tuple(xp.empty(array.shape, array.dtype) for array in arrays)
        allocated.record(main)
        copying.wait_event(allocated)
        try:
            for copy, array in zip(copies, arrays, strict=True):
                _copy(copy, array, copying)
        finally:  # also after an error or an interrupt: a copy that was started uses both ends
            arrived.record(copying)
            _uploads.hold(arrived, arrays, copies)
    return DeviceCopy(copies, arrived)


class _InFlight:
    """Copies of one direction in the order of their start, and the memory that each holds until it is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: deque[tuple[Any, tuple]] = deque()

    def hold(self, event: Any, *ends: Any) -> None:
        """Keep ``ends`` alive until ``event``, recorded after the copy, is done."""
        with self._lock:
            self._copies.append((event, ends))

    def pinned(self, shape: tuple[int, ...], dtype: Any, cupy: Any) -> numpy.ndarray:
        """Return an uninitialized array in pinned memory, reused from a finished copy if there is one."""
        self.let_go()
        size = math.prod(shape) * numpy.dtype(dtype).itemsize
        memory = cupy.cuda.alloc_pinned_memory(max(size, 1))  # from CuPy's pool: to lock pages takes long
        return numpy.ndarray(shape, dtype, memory)

    def let_go(self) -> None:
        """Release the memory of copies that are done; never wait."""
        done = []  # freed outside the lock
        with self._lock:
            while self._copies and self._copies[0][0].done:
                done.append(self._copies.popleft())


_downloads, _uploads = _InFlight(), _InFlight()


def let_go() -> None:
    """Release the memory of all copies that are done, now instead of at the next copy."""
    _downloads.let_go()
    _uploads.let_go()


_streams: dict[int, Any] = {}  # by device


def _copying_stream() -> Any:
    """Return the current device's stream for copies to it. Non-blocking: others synchronize with the null stream."""
    device = xp.cuda.runtime.getDevice()
    if device not in _streams:
        _streams[device] = xp.cuda.Stream(non_blocking=True)
    return _streams[device]


def _copy(array: Array, host: numpy.ndarray, stream: Any) -> None:
    runtime = xp.cuda.runtime
    target: Any = array.data  # CuPy's
    runtime.memcpyAsync(target.ptr, host.ctypes.data, host.nbytes, runtime.memcpyHostToDevice, stream.ptr)
