"""A network's parameters, or its gradients, as one flat buffer seen by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from backend import array_module, is_array
from backend.checks import instance, refusal


class ParameterDict(dict):
    """Names to arrays that are all views of one 1-D buffer, one after another in the order of the names.

    An optimizer works on ``flat`` in one go. Assignment copies into the view, so that it stays one:
    ``params["W1"] = w`` and ``params["W1"] -= step`` both change the network's own array.

    Args:
        shapes: shape by name.
        dtype: of the buffer.
        library: ``numpy`` or ``cupy``.

    Attributes:
        flat: the buffer, starting at zero.
        layout: (name, shape, dtype) of each array, in order: they stay as they are.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: Any, library: Any) -> None:
        instance("shapes", shapes, Mapping, "a dictionary of shapes")
        self.flat = library.zeros(sum(map(math.prod, shapes.values())), dtype)
        self.layout = [(name, tuple(shape), self.flat.dtype) for name, shape in shapes.items()]
        start = 0
        for name, shape in shapes.items():
            stop = start + math.prod(shape)
            super().__setitem__(name, self.flat[start:stop].reshape(shape))
            start = stop

    def __setitem__(self, name: str, value: Any) -> None:
        self._check(name, value)
        view = self[name]
        if value is not view:
            view[...] = value

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Copies each of the given arrays into the view of its name.

        Raises:
            KeyError: there is no parameter of that name.
            TypeError: a value is no array of numbers, or lies on another device than the parameters.
            ValueError: it has another shape. Nothing was changed then, whichever of them it was.
        """
        given = dict(*args, **kwargs)
        for name, value in given.items():
            self._check(name, value)
        for name, value in given.items():
            self[name] = value

    def copy(self) -> ParameterDict:
        """The same names and values over a buffer of their own."""
        clone = ParameterDict.__new__(ParameterDict)
        clone.flat, clone.layout = self.flat.copy(), self.layout
        start = 0
        for name, view in self.items():
            dict.__setitem__(clone, name, clone.flat[start : start + view.size].reshape(view.shape))
            start += view.size
        return clone

    def _check(self, name: str, value: Any) -> None:
        if name not in self:
            raise KeyError(f"no parameter {name!r}; there are {', '.join(self)}")
        view = self[name]
        if not is_array(value) or value.dtype.kind not in "fiu":
            raise refusal(TypeError, name, f"an array of numbers of shape {view.shape}", value)
        array_module(value, view)  # refuses a mix of host and device arrays
        if value.shape != view.shape:
            raise ValueError(f"{name} has shape {view.shape}, cannot take {value.shape}")

    def _fixed(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("the parameters' names are fixed: they are views of one buffer")

    __delitem__ = pop = popitem = clear = setdefault = __ior__ = _fixed

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ParameterDict is views of its network's buffer: copy() it, or save the network's parameters")
