"""Initial weights, drawn from the current generator (``backend.random``): one seed gives the same on every device."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from backend import random, xp
from backend.checks import LARGEST_COUNT, array_shape, floating_dtype, real, refusal, whole
from backend.types import Array

Init = str | float

LARGEST_DEVIATION = 1000.0
"""The largest standard deviation of initial weights: beyond it sums overflow in float16, and no dtype learns."""

# Inside unfilled: the shapes that weights may have, or None for all.
_unfilled: ContextVar[tuple[Counter[tuple[int, ...]] | None] | None] = ContextVar("unfilled", default=None)


def weights(shape: tuple[int, ...], fan_in: int, init: Init = "he", dtype: Any = "float32") -> Array:
    """Return normally distributed weights.

    Args:
        fan_in: number of inputs that each output sums over.
        init: the standard deviation: ``"he"`` for √(2 / fan_in) (He et al., 2015, for ReLU), ``"xavier"`` for
            √(1 / fan_in) (Glorot and Bengio, 2010, as the book has it, for sigmoid and tanh), or a number.

    Raises:
        TypeError: an argument is not a number, or ``dtype`` not floating.
        ValueError: ``init`` is another name or a negative number, or a size is out of its range; inside ``unfilled``,
            the shape is not allowed.

    Examples:
        >>> from layers.initializers import weights
        >>> W = weights((784, 50), fan_in=784, init="he")
        >>> W.shape, str(W.dtype)
        ((784, 50), 'float32')
    """
    shape, dtype = array_shape("shape", shape), floating_dtype("dtype", dtype)
    deviation = standard_deviation(fan_in, init)
    unfilled = _unfilled.get()
    if unfilled is None:
        return random.normal(shape, deviation, dtype)
    (left,) = unfilled
    if left is not None:
        if left[shape] == 0:
            raise ValueError(f"needs weights of shape {shape}, but the file has none left")
        left[shape] -= 1
    return xp.zeros(shape, dtype)


@contextmanager
def unfilled(shapes: Iterable[tuple[int, ...]] | None = None) -> Iterator[None]:
    """Make new weights zeros inside a ``with``, for layers whose weights are read from a file later.

    Nothing is drawn, so the random state stays as it is.

    Args:
        shapes: the shapes of the arrays in the file. Only weights of these shapes can be made, each as often as it is
            given, so that the layers take no more memory than the arrays. None allows all.
    """
    before = _unfilled.set((None if shapes is None else Counter(shapes),))
    try:
        yield
    finally:
        _unfilled.reset(before)


def standard_deviation(fan_in: int, init: Init) -> float:
    """Return the standard deviation that ``init`` names; see ``weights``."""
    fan_in = whole("fan_in", fan_in, 1, LARGEST_COUNT)
    if not isinstance(init, str):
        return real("init", init, least=0, most=LARGEST_DEVIATION)
    if init.lower() in ("he", "relu"):
        return math.sqrt(2 / fan_in)
    if init.lower() in ("xavier", "sigmoid"):
        return math.sqrt(1 / fan_in)
    raise refusal(ValueError, "init", "'he' ('relu'), 'xavier' ('sigmoid') or a standard deviation", init)
