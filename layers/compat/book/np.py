"""NumPy's names on the active device: the replacement of ``import numpy as np`` for a GPU.

``from training.compat.book import np``. On the CPU every name is NumPy's own. On a GPU it is CuPy's, except
``np.random``: NumPy draws the numbers on the host and they are copied to the device, so that a seed gives the same
initial weights and batches on both. Names that CuPy lacks (``np.errstate``) are NumPy's.

CuPy differs from NumPy in three points: ``x[i]`` of one element is a view of the array, not a number (write
``float(x[i])`` to keep its value); functions take arrays, not lists; ``np.uint8(x)`` is ``x.astype(np.uint8)``.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy

from backend import asarray, asnumpy, current_device, xp


def __getattr__(name: str) -> Any:
    if current_device().kind == "cpu":
        return getattr(numpy, name)
    if name == "random":
        return _DrawnOnHost(numpy.random)
    return getattr(xp if hasattr(xp, name) else numpy, name)


def __dir__() -> list[str]:
    return sorted({*dir(numpy), *dir(xp)})


class _DrawnOnHost:
    """Wrapper of ``numpy.random``, or of a generator, whose functions take and return arrays on the active device."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._source, name)
        if not callable(value):
            return value

        @functools.wraps(value)
        def draw(*args: Any, **options: Any) -> Any:
            on_host = [_to_host(arg) for arg in args]
            drawn = value(*on_host, **{key: _to_host(option) for key, option in options.items()})
            if name == "shuffle" and on_host[0] is not args[0]:
                args[0][...] = asarray(on_host[0])  # in place: what was shuffled is a copy
            if isinstance(drawn, numpy.ndarray):
                return asarray(drawn) if drawn.dtype.kind in "biuf" else drawn
            generators = numpy.random.Generator, numpy.random.RandomState  # here: its import takes a while
            return _DrawnOnHost(drawn) if isinstance(drawn, generators) else drawn

        return draw

    def __repr__(self) -> str:
        return f"<{self._source!r}, with arrays on {current_device()}>"


def _to_host(value: Any) -> Any:
    return asnumpy(value) if hasattr(value, "__cuda_array_interface__") else value
