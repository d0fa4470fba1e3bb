"""First weights, drawn from the current generator (``backend.random``): seeded once, the same everywhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from backend import random, xp
from backend.checks import LARGEST_COUNT, array_shape, floating_dtype, real, refusal, whole

Init = str | float

LARGEST_DEVIATION = 1000.0
"""Of first weights: beyond it sums overflow in float16, and nothing learns in any dtype."""

# Inside unfilled: what weights may be made, None for all.
_unfilled: ContextVar[tuple[Counter[tuple[int, ...]] | None] | None] = ContextVar("unfilled", default=None)


def weights(shape: tuple[int, ...], fan_in: int, init: Init = "he", dtype: Any = "float32") -> Any:
    """Normally distributed weights.

    Args:
        fan_in: inputs that each output sums over.
        init: the standard deviation: ``"he"`` for √(2 / fan_in) (He et al., 2015, for ReLU), ``"xavier"`` for
            √(1 / fan_in) (Glorot and Bengio, 2010, as the book has it, for sigmoid and tanh), or a number.

    Raises:
        TypeError: an argument is no number, or ``dtype`` not floating.
        ValueError: ``init`` is another name or a negative number, or a size out of its range; inside ``unfilled``,
            the shape is not allowed.
    """
    shape, dtype = array_shape("shape", shape), floating_dtype("dtype", dtype)
    deviation = standard_deviation(fan_in, init)
    unfilled = _unfilled.get()
    if unfilled is None:
        return random.normal(shape, deviation, dtype)
    (left,) = unfilled
    if left is not None:
        if left[shape] == 0:
            raise ValueError(f"needs weights of shape {shape}, which are not there")
        left[shape] -= 1
    return xp.zeros(shape, dtype)


@contextmanager
def unfilled(shapes: Iterable[tuple[int, ...]] | None = None) -> Iterator[None]:
    """For a ``with`` in which layers are made whose weights come later, from a file: they are zeros.

    Nothing is drawn, so the random state stays as it is.

    Args:
        shapes: of the arrays that are there for them. Weights are made of these shapes alone, each as often as it is
            given, so that layers take no more memory than the arrays. None allows all.
    """
    before = _unfilled.set((None if shapes is None else Counter(shapes),))
    try:
        yield
    finally:
        _unfilled.reset(before)


def standard_deviation(fan_in: int, init: Init) -> float:
    """The number that ``init`` stands for; see ``weights``."""
    fan_in = whole("fan_in", fan_in, 1, LARGEST_COUNT)
    if not isinstance(init, str):
        return real("init", init, least=0, most=LARGEST_DEVIATION)
    if init.lower() in ("he", "relu"):
        return math.sqrt(2 / fan_in)
    if init.lower() in ("xavier", "sigmoid"):
        return math.sqrt(1 / fan_in)
    raise refusal(ValueError, "init", "'he' ('relu'), 'xavier' ('sigmoid') or a standard deviation", init)
