"""NumPy's names on the active device: what a program's ``import numpy as np`` becomes for a GPU.

``from training.compat.book import np``. On the CPU every name is NumPy's own. On a GPU it is CuPy's, but for
``np.random``: numbers are drawn by NumPy on the host and copied to the device, so that a seed gives the same first
weights and batches on both. Names that CuPy lacks (``np.errstate``) are NumPy's.

Three things of NumPy that CuPy has otherwise: ``x[i]`` of one element is a view of the array, not a number (write
``float(x[i])`` to remember it); functions take arrays and no lists; ``np.uint8(x)`` is ``x.astype(np.uint8)``.
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
    """``numpy.random``, or a generator of it, whose functions take and return arrays of the active device."""

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
            return _DrawnOnHost(drawn) if isinstance(drawn, _GENERATORS) else drawn

        return draw

    def __repr__(self) -> str:
        return f"<{self._source!r}, with arrays on {current_device()}>"


_GENERATORS = (numpy.random.Generator, numpy.random.RandomState)


def _to_host(value: Any) -> Any:
    return asnumpy(value) if hasattr(value, "__cuda_array_interface__") else value
