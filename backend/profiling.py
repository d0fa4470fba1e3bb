"""Ranges of time by name, for Nsight in the NVTX domain ``xpnet``, or for a recorder in this process.

A range is built once and entered often. Whoever listens is told when it begins and ends, and of which arrays it is
about: NVTX where a tool was attached as the process began, and every ``listen``. Where nobody does, entering and
leaving is a look at an empty tuple, 0.1 to 0.2 µs, and nothing is asked of an array.

In NVTX a range has its name as the message, a category (the phase), and as payload the bytes of the arrays it was given
(int64). An ``operation`` is named with their shapes, ``gemm.matmul 100x784 784x50``, and has the category of the
range it is in. What it returns is not in the payload: NVTX wants that as the range begins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, Protocol, TypeVar

from backend.active import current_device, xp

try:
    import nvtx
except ImportError:  # ranges are a service to a profiler: without the package there is none to serve
    nvtx = None

Function = TypeVar("Function", bound=Callable[..., Any])


class Range:
    """A named range, for ``with`` or for ``push`` and ``pop`` in a loop that counts nanoseconds.

    Args:
        name: what is shown, such as a layer's name in its model.
        category: the phase it belongs to: ``data``, ``forward``, ``backward``, ``update``, ``step``, …; empty for that
            of the range it is in.
        kind: ``loop``, ``phase``, ``layer`` or ``operation``.
    """

    __slots__ = ("category", "kind", "name")

    def __init__(self, name: str, category: str = "", kind: str = "phase") -> None:
        self.name = name
        self.category = category
        self.kind = kind

    def push(self, about: Any = ()) -> None:
        """Enters the range; each push needs one ``pop``, also when an exception passes.

        Args:
            about: an array, or arrays in tuples, lists and dicts; what in them is no array is not looked at.
        """
        if _listeners:  # nanoseconds less than an empty loop
            for listener in _listeners:
                listener.push(self, about)

    def of(self, about: Any) -> Any:
        """The range for ``with``, about the same as for ``push``."""
        return _Given(self, about) if _listeners else self

    def __enter__(self) -> Range:
        if _listeners:
            self.push()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if _listeners:
            pop()


class _Given:
    """A range and what it is about, for one ``with``."""

    def __init__(self, entered: Range, about: Any) -> None:
        self._entered = entered
        self._about = about

    def __enter__(self) -> Range:
        self._entered.push(self._about)
        return self._entered

    def __exit__(self, *exc_info: object) -> None:
        pop()


def pop(results: Any = ()) -> None:
    """Leaves the range that this thread entered last; ``results`` has the arrays it made."""
    if _listeners:
        for listener in _listeners:
            listener.pop(results)


def is_listened_to() -> bool:
    """Return whether anybody listens; where not, a caller in a hurry need not enter a range."""
    return bool(_listeners)


@lru_cache(maxsize=4096)
def range(name: str, category: str = "") -> Range:  # noqa: A001  (used as profiling.range)
    """The range of that name and category, built at the first call: for a program's own ranges."""
    return Range(name, category)


def operation(function: Function) -> Function:
    """Makes every call of ``function`` a range of the kind ``operation``, about its arguments and results.

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
    """What is told of ranges, on the thread that enters and leaves them."""

    def push(self, entered: Range, about: Any) -> None:
        """A range begins."""

    def pop(self, results: Any) -> None:
        """The range ends that this thread entered last. It may have begun before this listened."""


_listeners: tuple[Listener, ...] = ()
_lock = threading.Lock()


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Tells ``listener`` of the ranges of all threads, inside a ``with``."""
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
    """What a GPU's profiler is to look at: cudaProfilerStart and cudaProfilerStop around a ``with``; nothing on a CPU.

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
    """The array that ``value`` is, or those in the tuples, lists and dicts that it is made of, each once."""
    if hasattr(value, "nbytes"):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    found = {id(array): array for inside in value for array in arrays_in(inside)}
    return list(found.values())


class _Nvtx:
    """Tells the tools that listen to NVTX."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain
        self._inside = threading.local()

        @lru_cache(maxsize=4096)
        def attributes(message: str, category: str, payload: int | None) -> Any:
            return domain.get_event_attributes(message=message, category=category or None, payload=payload)

        self._attributes = attributes

    def push(self, entered: Range, about: Any) -> None:
        categories = self._categories()
        category = entered.category or (categories[-1] if categories else "")
        given = arrays_in(about)
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
    """Listens for NVTX if a tool does: else the package hands out a domain that does nothing."""
    global _listeners
    domain = nvtx.get_domain("xpnet") if nvtx else None
    if nvtx and isinstance(domain, nvtx.Domain):
        _listeners = (*_listeners, _Nvtx(domain))


_attach()
