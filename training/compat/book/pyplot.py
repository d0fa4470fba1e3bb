"""``matplotlib.pyplot`` that takes device arrays: the replacement of ``import matplotlib.pyplot as plt`` for a GPU.

Every name is matplotlib's. Axes made after the import of this module also take device arrays, and lists of them, and
copy them to the host. ``imread`` returns an array on the active device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from matplotlib import projections, pyplot
from matplotlib.axes import Axes

from backend import asarray, asnumpy


def __getattr__(name: str) -> Any:
    return getattr(pyplot, name)


def __dir__() -> list[str]:
    return dir(pyplot)


def imread(fname: Any, format: str | None = None) -> Any:  # noqa: A002  (matplotlib's name)
    """Read an image file as ``matplotlib.pyplot.imread`` does, into an array on the active device."""
    return asarray(pyplot.imread(fname, format))


class HostAxes(Axes):
    """Axes whose methods also take device arrays."""


def _with_host_arrays(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        return method(self, *map(_to_host, args), **{key: _to_host(option) for key, option in options.items()})

    return call


def _to_host(value: Any) -> Any:
    if hasattr(value, "__cuda_array_interface__"):
        return asnumpy(value)
    if isinstance(value, (list, tuple)) and any(hasattr(part, "__cuda_array_interface__") for part in value):
        return [_to_host(part) for part in value]
    return value


for _name in ("set_xlim", "set_ylim", "set_xticks", "set_yticks", *vars(Axes)):
    if not _name.startswith("_") and callable(getattr(Axes, _name)):
        setattr(HostAxes, _name, _with_host_arrays(getattr(Axes, _name)))
projections.register_projection(HostAxes)  # under the name "rectilinear" of plain axes
