"""The parameters of a network, or their gradients, as one flat buffer with views by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy

from backend import array_module, is_array, require_same_device
from backend.checks import instance, refusal
from backend.types import Array
from kernels.core.filters import filters_in


class _NamedTwice(dict):
    """Dictionary of arrays that are found by their dotted names, too.

    Attributes:
        dotted: names with the layer's place, such as "Convolution1.W", by name.
    """

    dotted: dict[str, str]

    def __missing__(self, name: str) -> Any:
        for short, dotted in self.dotted.items():
            if dotted == name:
                return self[short]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.dotted.values()

    def get(self, name: str, default: Any = None) -> Any:
        """Return an array by either of its names, or the default."""
        try:
            return self[name]
        except KeyError:
            return default


class ParameterDict(_NamedTwice):
    """Dictionary of arrays that are all views of one 1-D buffer, one after another in the order of the names.

    On a GPU filters (4-D) lie in the order in which convolutions read them (``kernels.core.filters``); all other arrays
    are C-contiguous. An optimizer updates ``flat`` at once. Assignment copies into the view:
    ``params["W1"] = w`` and ``params["W1"] -= step`` both change the network's own array. The names are fixed.

    Args:
        shapes: shape by name.
        dtype: of the buffer.
        library: ``numpy`` or ``cupy``.

    Attributes:
        flat: the buffer, initially zeros.
        layout: (name, shape, dtype) of each array, in order.
        dotted: names with the layer's place, such as "Convolution1.W", by name; arrays are found by them, too.
        frozen: names of arrays that are not learned.

    Examples:
        >>> import numpy
        >>> from training.models import ParameterDict
        >>> params = ParameterDict({"W1": (2, 2), "b1": (2,)}, "float32", numpy)
        >>> params["b1"] = numpy.asarray([1, 2])
        >>> params.flat
        array([0., 0., 0., 0., 1., 2.], dtype=float32)
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: Any, library: Any) -> None:
        instance("shapes", shapes, Mapping, "a dictionary of shapes")
        self.flat = library.zeros(sum(map(math.prod, shapes.values())), dtype)
        self.layout = [(name, tuple(shape), self.flat.dtype) for name, shape in shapes.items()]
        self.dotted = {}
        self.frozen: frozenset[str] = frozenset()
        start = 0
        for name, shape in shapes.items():
            stop = start + math.prod(shape)
            super().__setitem__(name, _view(self.flat[start:stop], tuple(shape)))
            start = stop

    def __setitem__(self, name: str, value: Any) -> None:
        self._check(name, value)
        view = self[name]
        if value is not view:
            view[...] = value

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Copy each of the given arrays into the view of its name. After an error, nothing was changed.

        Raises:
            KeyError: there is no parameter of that name.
            TypeError: a value is not an array of numbers, or lies on another device than the parameters.
            ValueError: it has another shape.
        """
        given = dict(*args, **kwargs)
        for name, value in given.items():
            self._check(name, value)
        for name, value in given.items():
            self[name] = value

    def copy(self) -> ParameterDict:
        """Return a copy with the same names and values over a new buffer."""
        clone = ParameterDict.__new__(ParameterDict)
        clone.flat, clone.layout = self.flat.copy(), self.layout
        clone.dotted, clone.frozen = self.dotted, self.frozen
        start = 0
        for name, view in self.items():
            dict.__setitem__(clone, name, _view(clone.flat[start : start + view.size], view.shape))
            start += view.size
        return clone

    def _check(self, name: str, value: Any) -> None:
        if name not in self:
            raise KeyError(f"no parameter {name!r}; there are {', '.join(self)}")
        view = self[name]
        if not is_array(value) or value.dtype.kind not in "fiu":
            raise refusal(TypeError, name, f"an array of numbers of shape {view.shape}", value)
        require_same_device(value, view)
        if value.shape != view.shape:
            raise ValueError(f"{name} must have shape {view.shape}, got {value.shape}")

    def _fixed(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("the parameters' names are fixed: they are views of one buffer")

    __delitem__ = pop = popitem = clear = setdefault = __ior__ = _fixed

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ParameterDict is made of views of its network's buffer: use copy(), or save the network")


class StateDict(_NamedTwice):
    """Dictionary of a network's arrays that are not learned.

    Args:
        arrays: the arrays by name, such as running_mean1.
        dotted: names with the layer's place, such as "BatchNormalization1.running_mean", by name.
    """

    def __init__(self, arrays: Mapping[str, Array], dotted: dict[str, str]) -> None:
        super().__init__(arrays)
        self.dotted = dotted


def _view(memory: Array, shape: tuple[int, ...]) -> Array:
    """Return memory (numbers,) as an array of ``shape``."""
    if len(shape) == 4 and array_module(memory) is not numpy:
        return filters_in(memory, shape)
    return memory.reshape(shape)
