"""Capture work on a GPU as a CUDA graph and replay it by one launch.

A graph repeats kernels and copies at the addresses and with the arguments of the capture; the Python code between them
does not run again. Three rules follow, and what is here keeps them:

- memory that the work allocated and freed while it was captured is used by every replay, so it comes from a pool that
  nobody else allocates from, and that lives as long as the graph;
- a number that changes from step to step lies in device memory, not among a kernel's arguments
  (``backend.graph_numbers``);
- nothing in the work may wait for the GPU or read from it: such work is refused, and the error names the place.
"""

from __future__ import annotations

import contextlib
import gc
import os
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from backend import blas
from backend.active import current_device
from backend.cuda_faults import first_line
from backend.devices import DeviceError
from backend.graph_numbers import GraphNumbers, capture_lock, recording

Result = TypeVar("Result")

_PACKAGES = ("cupy", "cupyx", "cupy_backends")
_HERE = os.path.dirname(__file__)

_REASONS = {
    900: "it waits for the GPU, or asks whether it is done",
    901: "an error before, which the work handled by itself, has spoiled the capture",
    904: "a stream that it started other work in was not joined again",
    905: "it waits for something that was started before the capture",
    906: "it uses the null stream beside a captured one",
    907: "it waits on the host for an event of the capture",
}
"""The meaning of CUDA's error numbers for captures, in terms of the captured code."""


class CaptureError(RuntimeError):
    """Work that cannot be captured; the message says which call is the cause, and where."""


class Graph(Generic[Result]):
    """Captured work. Made by ``Recorder.capture``.

    ``result`` is what the work returned: arrays that every replay writes anew.
    """

    def __init__(
        self, recorder: Recorder, graph: Any, numbers: GraphNumbers, work: Callable[[], Result], result: Result
    ) -> None:
        self.result = result
        self._recorder = recorder  # its pool holds the memory that the replays use
        self._graph = graph
        self._numbers = numbers
        self._work = work  # holds the arrays that it reads
        self._is_new = True

    def launch(self) -> Result:
        """Replay the work after all that was launched in the current stream, and before what follows in it.

        The first launch has the numbers of the capture (see ``backend.graph_numbers``): what the work did on the host,
        such as counting, was done in the capture. Later launches compute them anew.
        """
        recorder = self._recorder
        if self._is_new:
            self._is_new = False
        else:
            self._numbers.compute()
        if recorder.is_current():
            self._run(recorder.stream)
        else:
            with recorder.ordered():
                self._run(recorder.stream)
        return self.result

    def _run(self, stream: Any) -> None:
        self._numbers.upload(stream)
        self._graph.launch(stream)


_idle_streams: dict[int, list[Any]] = {}
"""By device, the streams of recorders that have ended. A stream's cuBLAS handle and workspace last as long as the
process, so that a program which trains many networks in turn must not make a stream for each."""


def _take_stream(cupy: Any, idle: list[Any]) -> Any:
    """Return a stream with its cuBLAS handle and workspace, which must have their memory before a step takes it."""
    try:
        stream = idle.pop()
    except IndexError:
        stream = cupy.cuda.Stream(non_blocking=True)
    try:
        with stream:
            blas.prepare()
    except BaseException:
        idle.append(stream)
        raise
    return stream


def _give_back(pool: Any, stream: Any, idle: list[Any]) -> None:
    """Free a recorder's memory and keep its stream for the next: a graph holds the recorder, so none is left."""
    pool.free_all_blocks()  # CuPy's pools keep their memory when they end
    idle.append(stream)


class Recorder:
    """A stream and a memory pool for graphs of the current CUDA device.

    The stream is non-blocking, since CUDA cannot capture the null stream. Graphs of one recorder share the pool, and
    run one after another.

    Examples:
        >>> from backend import use, xp
        >>> from backend.graphs import Recorder
        >>> with use("cuda"):
        ...     recorder, x = Recorder(), xp.zeros(3)
        ...     graph = recorder.capture(lambda: xp.add(x, 1, out=x))
        ...     for _ in range(3):
        ...         y = graph.launch()
        ...     print(y)
        [3. 3. 3.]
    """

    def __init__(self) -> None:
        self._cupy: Any = _cupy()
        cupy = self._cupy
        idle = _idle_streams.setdefault(cupy.cuda.Device().id, [])
        self.stream: Any = _take_stream(cupy, idle)
        self._chunks = _Chunks(cupy.cuda.runtime)
        self.pool: Any = _new_pool(self._chunks)
        weakref.finalize(self, _give_back, self.pool, self.stream, idle).atexit = False
        self._before, self._after = (cupy.cuda.Event(disable_timing=True) for _ in range(2))

    def is_current(self) -> bool:
        """Return whether the current stream is the recorder's."""
        return bool(self._cupy.cuda.get_current_stream().ptr == self.stream.ptr)

    @contextlib.contextmanager
    def ordered(self) -> Iterator[None]:
        """Let the recorder's stream wait for the current one, and the current one for what the block launches there."""
        outer = self._cupy.cuda.get_current_stream()
        self._before.record(outer)
        self.stream.wait_event(self._before)
        try:
            yield
        finally:
            self._after.record(self.stream)
            outer.wait_event(self._after)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make the stream the current one in the block, such as for eager steps before a capture.

        The pool is for captures alone: arrays of eager work that live on would share its memory with replays.
        """
        with contextlib.ExitStack() as stack:
            if not self.is_current():
                stack.enter_context(self.ordered())
            stack.enter_context(self.stream)
            yield

    def capture(self, work: Callable[[], Result]) -> Graph[Result]:
        """Return ``work`` as a graph. It is called once, and what it launches is recorded but not run.

        Call the work eagerly before: compiling a kernel and starting cuBLAS are then done.

        Raises:
            CaptureError: the work waits for the GPU, reads from it, or uses what CuPy cannot capture. The message
                names the call and its place. The stream and the pool are as before, and so are CuPy's current ones.
            MemoryError: memory is exhausted.
        """
        if self._cupy.cuda.get_current_stream().is_capturing():
            raise CaptureError("work cannot be captured inside another capture")
        with self.active(), capture_lock:
            numbers = GraphNumbers(self._cupy)
            collecting = gc.isenabled()
            gc.disable()  # a finalizer that waits for the GPU would spoil the capture
            try:
                freed = self._chunks.freed
                self.stream.begin_capture()
                try:
                    with recording(numbers), self._cupy.cuda.using_allocator(self.pool.malloc):
                        result = work()
                except BaseException as error:
                    self._abandon()
                    if isinstance(error, Exception) and not isinstance(error, MemoryError):
                        raise CaptureError(f"the work cannot be captured: {_cause(error)}") from error
                    raise
                graph = self._end()
                if (
                    self._chunks.freed != freed
                ):  # CuPy's pool does so before it gives up: recorded kernels use that memory
                    raise MemoryError("memory was exhausted while work was captured")
            finally:
                if collecting:
                    gc.enable()
        return Graph(self, graph, numbers, work, result)

    def _end(self) -> Any:
        try:
            return self.stream.end_capture()
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise CaptureError(f"the work cannot be captured: {_reason(error)}") from error

    def _abandon(self) -> None:
        """End a capture that is of no use any more."""
        with contextlib.suppress(self._cupy.cuda.runtime.CUDARuntimeError):  # it says that the capture is spoiled
            self.stream.end_capture()


def _cupy() -> Any:
    """Return CuPy.

    Raises:
        DeviceError: the active device is not a CUDA device.
    """
    if current_device().kind != "cuda":
        raise DeviceError(f"CUDA graphs need a CUDA device; the active device is {current_device()}")
    import cupy

    return cupy


class _Chunks:
    """Take memory for a pool from the driver, and count what goes back to it."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.freed = 0

    def malloc(self, size: int, device: int) -> int:
        return int(self._runtime.malloc(size))

    def free(self, address: int, device: int) -> None:
        self.freed += 1
        self._runtime.free(address)


def _new_pool(chunks: _Chunks) -> Any:
    """Return a pool that takes at most what the limit of CuPy's default pool leaves, where one was set."""
    cupy = _cupy()
    allocator = cupy.cuda.PythonFunctionAllocator(chunks.malloc, chunks.free)
    pool, default = cupy.cuda.MemoryPool(allocator.malloc), cupy.get_default_memory_pool()
    if default.get_limit():
        pool.set_limit(size=max(default.get_limit() - default.total_bytes(), 1))
    return pool


def _cause(error: Exception) -> str:
    """Say which code called what cannot be captured, and why it cannot."""
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [frame for frame, _ in frames if not _is_library(frame.f_code.co_filename)]
    place = ""
    if own:
        frame = own[-1]
        owner = frame.f_locals.get("self")
        name = frame.f_code.co_name if owner is None else f"{type(owner).__name__}.{frame.f_code.co_name}"
        line = next(line for found, line in reversed(frames) if found is frame)
        place = f"{name} ({os.path.basename(frame.f_code.co_filename)}, line {line}): "
    return place + _reason(error)


def _is_library(file: str) -> bool:
    """Return whether a file is of CuPy or of this package, and so not the cause."""
    parts = file.replace("\\", "/").split("/")
    return os.path.dirname(file) == _HERE or any(package in parts for package in _PACKAGES)


def _reason(error: BaseException) -> str:
    known = _REASONS.get(getattr(error, "status", None) or 0)
    return f"{known} ({first_line(error)})" if known else first_line(error)
