"""Mark ranges of time by name, for Nsight in the NVTX domain ``xpnet``, or for a recorder in this process.

A range is made once and entered often. Listeners are told when it begins and ends, and its arrays: NVTX, if a tool was
attached when the process started, and every ``listen``. Without listeners, entering and leaving a range tests an empty
tuple, 0.1 to 0.2 µs, and does not read the arrays.

In NVTX a range has its name as the message, a category (the phase), and as payload the bytes of its input arrays
(int64). An ``operation`` has their shapes in its name, ``gemm.matmul 100x784 784x50``, and the category of the range it
is in. Results are not in the payload, which NVTX takes when the range begins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, Protocol, TypeVar

from backend.active import current_device, xp
from backend.forking import held_while_forking

try:
    import nvtx
except ImportError:  # without the package no profiler can listen to NVTX
    nvtx = None

Function = TypeVar("Function", bound=Callable[..., Any])


class Range:
    """A named range, for ``with``, or for ``push`` and ``pop`` where nanoseconds matter.

    Args:
        name: the shown name, such as a layer's name in its model.
        category: its phase: ``data``, ``forward``, ``backward``, ``update``, ``step``, …; empty for that of the range
        it is
            in.
        kind: ``loop``, ``phase``, ``layer`` or ``operation``.
    """

    __slots__ = ("category", "kind", "name")

    def __init__(self, name: str, category: str = "", kind: str = "phase") -> None:
        self.name = name
        self.category = category
        self.kind = kind

    def push(self, arrays: Any = ()) -> None:
        """Enter the range; each push needs one ``pop``, also after an exception.

        Args:
            arrays: an array, or arrays in tuples, lists and dicts, whose other elements are ignored.
        """
        if _listeners:  # some nanoseconds faster than an empty loop
            for listener in _listeners:
                listener.push(self, arrays)

    def of(self, arrays: Any) -> Any:
        """Return the range with its arrays for a ``with``; see ``push``."""
        return _Given(self, arrays) if _listeners else self

    def __enter__(self) -> Range:
        if _listeners:
            self.push()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if _listeners:
            pop()


class _Given:
    """A range and its arrays, for one ``with``."""

    def __init__(self, entered: Range, arrays: Any) -> None:
        self._entered = entered
        self._arrays = arrays

    def __enter__(self) -> Range:
        self._entered.push(self._arrays)
        return self._entered

    def __exit__(self, *exc_info: object) -> None:
        pop()


def pop(results: Any = ()) -> None:
    """Leave the range that this thread entered last; ``results`` has the arrays that it returned."""
    if _listeners:
        for listener in _listeners:
            listener.pop(results)


def is_listened_to() -> bool:
    """Return whether there is a listener; if not, time-critical code need not enter a range."""
    return bool(_listeners)


@lru_cache(maxsize=4096)
def range(name: str, category: str = "") -> Range:  # noqa: A001  (used as profiling.range)
    """Return the range of a name and category, made at the first call: for a program's own ranges."""
    return Range(name, category)


def operation(function: Function) -> Function:
    """Make every call of ``function`` a range of the kind ``operation``, with its arguments and results.

    Its name is that of the module and the function, such as ``gemm.matmul``.
    """
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__.strip('_')}"
    entered = Range(name, kind="operation")

    @wraps(function)
    def ranged(*args: Any, **kwargs: Any) -> Any:
        if not _listeners:
            return function(*args, **kwargs)
        entered.push((args, kwargs))
        result = None
        try:
            result = function(*args, **kwargs)
        finally:
            pop(result)
        return result

    return ranged  # type: ignore[return-value]


class Listener(Protocol):
    """Receiver of ranges, called on the thread that enters and leaves them."""

    def push(self, entered: Range, arrays: Any) -> None:
        """Handle the begin of a range."""

    def pop(self, results: Any) -> None:
        """Handle the end of this thread's last range, which may have begun before this listener was added."""


_listeners: tuple[Listener, ...] = ()
_lock = held_while_forking(threading.Lock())


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Report the ranges of all threads to ``listener``, inside a ``with``."""
    global _listeners
    with _lock:
        _listeners = (*_listeners, listener)
    try:
        yield
    finally:
        with _lock:
            _listeners = tuple(each for each in _listeners if each is not listener)


@contextmanager
def capture() -> Iterator[None]:
    """Mark work for a GPU's profiler: cudaProfilerStart and cudaProfilerStop around a ``with``; nothing on a CPU.

    Nsight Systems waits for it under ``--capture-range=cudaProfilerApi``.
    """
    if current_device().kind == "cpu":
        yield
        return
    xp.cuda.profiler.start()
    try:
        yield
    finally:
        xp.cuda.profiler.stop()


def arrays_in(value: Any) -> list[Any]:
    """Return the arrays in ``value``, an array or nested tuples, lists and dicts, each once."""
    if hasattr(value, "nbytes"):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    found = {id(array): array for inside in value for array in arrays_in(inside)}
    return list(found.values())


class _Nvtx:
    """Listener that reports ranges to NVTX."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain
        self._inside = threading.local()

        @lru_cache(maxsize=4096)
        def attributes(message: str, category: str, payload: int | None) -> Any:
            return domain.get_event_attributes(message=message, category=category or None, payload=payload)

        self._attributes = attributes

    def push(self, entered: Range, arrays: Any) -> None:
        categories = self._categories()
        category = entered.category or (categories[-1] if categories else "")
        given = arrays_in(arrays)
        message, payload = entered.name, None
        if given:
            payload = sum(array.nbytes for array in given)
            if entered.kind == "operation":
                message = " ".join([message, *("x".join(map(str, array.shape)) for array in given if array.shape)])
        self._domain.push_range(self._attributes(message, category, payload))
        categories.append(category)

    def pop(self, results: Any) -> None:
        self._categories().pop()
        self._domain.pop_range()

    def _categories(self) -> list[str]:
        if not hasattr(self._inside, "categories"):
            self._inside.categories = []
        return self._inside.categories


def _attach() -> None:
    """Add the NVTX listener if a tool listens: otherwise the package returns a domain without effect."""
    global _listeners
    domain = nvtx.get_domain("xpnet") if nvtx else None
    if nvtx and isinstance(domain, nvtx.Domain):
        _listeners = (*_listeners, _Nvtx(domain))


_attach()
