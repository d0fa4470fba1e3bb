"""NVTX ranges in the domain ``xpnet``, seen by Nsight Systems and Nsight Compute; nothing where none listens.

A range is built once and entered often: :class:`Range` keeps the prebuilt attributes, so that entering and
leaving it with :meth:`~Range.push` and :meth:`~Range.pop` costs about 50 ns when no profiler listens.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

try:
    import nvtx
except ImportError:  # ranges are a service to a profiler: without the package there is none to serve
    nvtx = None


class _Silent:
    """Stands in for the domain where the nvtx package is missing."""

    def get_event_attributes(self, **attributes: Any) -> None:
        return None

    def push_range(self, attributes: Any) -> None:
        return None

    def pop_range(self) -> None:
        return None


_domain: Any = nvtx.get_domain("xpnet") if nvtx else _Silent()

pop = _domain.pop_range


class Range:
    """A named range, for ``with`` or for :meth:`push` and :meth:`pop` in a loop that counts nanoseconds.

    Args:
        name: what Nsight shows, such as a layer's name in its model.
        category: the phase it belongs to: ``data``, ``forward``, ``backward``, ``update``, ``step``, …
    """

    __slots__ = ("attributes", "category", "name")

    def __init__(self, name: str, category: str = "") -> None:
        self.name = name
        self.category = category
        self.attributes = _domain.get_event_attributes(message=name, category=category or None)

    def push(self) -> None:
        """Enters the range; each push needs one :func:`pop`, also when an exception passes."""
        _domain.push_range(self.attributes)

    def __enter__(self) -> Range:
        _domain.push_range(self.attributes)
        return self

    def __exit__(self, *exc_info: object) -> None:
        pop()


@lru_cache(maxsize=4096)
def range(name: str, category: str = "") -> Range:  # noqa: A001  (used as profiling.range)
    """The range of that name and category, built at the first call."""
    return Range(name, category)
