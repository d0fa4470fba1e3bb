"""Copy without waiting: batches to the device ahead of their use, results back to the host.

An asynchronous copy must keep its source and destination alive until it completes. This module holds references to
both, with the event that marks completion. (Except for the source of a copy to the host: it is freed in the order of
the stream that copies it.)
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from backend import profiling
from backend.active import current_device, xp
from backend.arrays import array_module, require_arrays

Layout = Sequence[tuple[tuple[int, ...], Any]]
"""(shape, dtype) of each array."""


COPY = profiling.Range("copy", "data")


class HostCopy:
    """A copy to the host that may still be in progress. Made by ``copy_to_host``."""

    def __init__(self, host: numpy.ndarray, event: Any = None) -> None:
        self._host = host
        self._event = event

    @property
    def done(self) -> bool:
        """True if the copy is complete; does not wait."""
        return self._event is None or self._event.done

    def get(self) -> numpy.ndarray:
        """Return the copy; wait for it if it is not complete."""
        if not self.done:
            self._event.synchronize()
        return self._host


def copy_to_host(array: Any) -> HostCopy:
    """Start to copy ``array`` to the host without waiting, so that a loss can be watched without stalling the GPU.

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
        array.get(out=host, blocking=False)
    finally:
        event.record()
        _downloads.hold(event, host)
    return HostCopy(host, event)


class Upload:
    """Arrays that are made on the host and copied to the active device. Made by ``upload``.

    Its three steps run in this order; each runs the one before it if that was left out. This class is for the CPU,
    where nothing is copied.
    """

    def __init__(self, layout: Layout, write: Callable[..., None], finish: Callable[..., tuple]) -> None:
        self._layout = layout
        self._write = write
        self._finish = finish
        self._arrays: tuple | None = None
        self._device = current_device()

    def write(self) -> Upload:
        """Make the arrays in host memory. May run on another thread: it does not use the GPU."""
        if self._arrays is None:
            host = tuple(numpy.empty(shape, dtype) for shape, dtype in self._layout)
            self._write(*host)
            self._arrays = self._finish(*host)
        return self

    def start(self) -> Upload:
        """Start to copy the arrays to the device, without waiting.

        Raises:
            RuntimeError: the active device has changed since ``upload``.
        """
        if current_device() != self._device:
            raise RuntimeError(
                f"arrays on their way to {self._device} are taken while {current_device()} is active: change the "
                "device before an epoch of batches is begun, or after it"
            )
        return self.write()

    def get(self) -> tuple:
        """Return the finished arrays for the current stream, which waits for them; the host does not.

        Raises:
            RuntimeError: as ``start``.
        """
        self.start()
        assert self._arrays is not None
        return self._arrays


class _CudaUpload(Upload):
    """Upload from pinned memory on a separate stream.

    Invariants, with *main* for the stream that is current in ``start`` and ``get``:

    - The device arrays are allocated on main. CuPy's pool reuses freed memory in the order of its stream, so main
      may still read or write its old content. The copying stream therefore waits for
      an event which main records after the allocation, and main for one which the copying stream records after
      the copy. Between the two, only the copy touches the memory; before and after, only main.
    - An upload that is dropped must not return its memory to main or to the pool of pinned memory while the copy
      uses it: source and destination are held until the copy's event is done.
    - Pinned memory is written again only after that, without waiting: if all of it is in use, more is allocated.
    """

    def __init__(self, layout: Layout, write: Callable[..., None], finish: Callable[..., tuple]) -> None:
        super().__init__(layout, write, finish)
        # Here, not in `write`: the current device is per thread, and this thread has set it.
        self._host: tuple | None = tuple(_uploads.pinned(shape, dtype, xp) for shape, dtype in layout)
        self._written = False
        self._staged: tuple | None = None
        self._arrived: Any = None

    def write(self) -> Upload:
        if not self._written:
            assert self._host is not None
            self._write(*self._host)
            self._written = True
        return self

    def start(self) -> Upload:
        super().start()
        if self._arrived is not None:
            return self
        assert self._host is not None
        with COPY.of(self._host):
            main, copying = xp.cuda.get_current_stream(), _copying_stream()
            allocated, arrived = xp.cuda.Event(disable_timing=True), xp.cuda.Event(disable_timing=True)
            staged = tuple(xp.empty(host.shape, host.dtype) for host in self._host)
            allocated.record(main)
            copying.wait_event(allocated)
            try:
                for array, host in zip(staged, self._host, strict=True):
                    _copy(array, host, copying)
            finally:  # also after an error or an interrupt: a started copy uses both
                arrived.record(copying)
                _uploads.hold(arrived, self._host, staged)
            self._staged, self._arrived, self._host = staged, arrived, None
        return self

    def get(self) -> tuple:
        self.start()
        if self._arrays is None:
            assert self._staged is not None
            xp.cuda.get_current_stream().wait_event(self._arrived)
            self._arrays, self._staged = self._finish(*self._staged), None
        return self._arrays


def upload(layout: Layout, write: Callable[..., None], finish: Callable[..., tuple]) -> Upload:
    """Arrays for the active device, to be made on the host and copied ahead of their use.

    Call it, ``start`` and ``get`` with the same device and the same stream current; ``write`` on any thread.

    Args:
        layout: shape and dtype of each host array.
        write: takes the host arrays, uninitialised and C-contiguous, and fills them.
        finish: takes the same arrays on the device and returns a tuple of those wanted, such as bytes made floats: the
            fewer bytes are copied, the better. On a CPU it runs right after ``write``, in the same thread; on a GPU
            its kernels are launched in ``get``. It may hand on its arguments; they are never written to again.
    """
    return (Upload if current_device().kind == "cpu" else _CudaUpload)(layout, write, finish)


class _UnderWay:
    """Copies of one direction, in the order of their start, and what each needs until it is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: deque[tuple[Any, tuple]] = deque()

    def hold(self, event: Any, *ends: Any) -> None:
        """Keeps ``ends`` until ``event``, recorded after the copy, is done."""
        with self._lock:
            self._copies.append((event, ends))

    def pinned(self, shape: tuple[int, ...], dtype: Any, cupy: Any) -> numpy.ndarray:
        """An uninitialised array in pinned memory: that of a copy which is done, where there is some."""
        self.let_go()
        size = math.prod(shape) * numpy.dtype(dtype).itemsize
        memory = cupy.cuda.alloc_pinned_memory(max(size, 1))  # from CuPy's pool: to lock pages takes long
        return numpy.ndarray(shape, dtype, memory)

    def let_go(self) -> None:
        """Holds no longer what copies needed that are done; never waits."""
        done = []  # freed outside the lock
        with self._lock:
            while self._copies and self._copies[0][0].done:
                done.append(self._copies.popleft())


_downloads, _uploads = _UnderWay(), _UnderWay()


def let_go() -> None:
    """Lets go of all that was held for copies that are done, without waiting for the next copy to do so."""
    _downloads.let_go()
    _uploads.let_go()


_streams: dict[int, Any] = {}  # by device


def _copying_stream() -> Any:
    """The current device's stream for uploads. Non-blocking: any other waits for the null stream, and that for it."""
    device = xp.cuda.runtime.getDevice()
    if device not in _streams:
        _streams[device] = xp.cuda.Stream(non_blocking=True)
    return _streams[device]


def _copy(array: Any, host: numpy.ndarray, stream: Any) -> None:
    runtime = xp.cuda.runtime
    runtime.memcpyAsync(array.data.ptr, host.ctypes.data, host.nbytes, runtime.memcpyHostToDevice, stream.ptr)
