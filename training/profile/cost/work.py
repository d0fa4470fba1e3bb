"""The units in which a layer's work is counted, and the registry of what each layer class costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy

from kernels.core.dtypes import acc_dtype
from layers import Layer
from layers.base import Shape


class Batch(NamedTuple):
    """The shape of a batch that a layer takes or returns: (samples, \\*shape) of ``dtype``, images channels-last."""

    samples: int
    shape: Shape
    dtype: numpy.dtype

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return self.samples * math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Return the number of bytes."""
        return self.size * self.dtype.itemsize

    @property
    def acc_itemsize(self) -> int:
        """Return the bytes of a number of the dtype in which such numbers are summed."""
        return acc_dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Work:
    """The work of one phase; ``+`` adds two phases up.

    Attributes:
        product_flops: multiplications and additions in matrix products, which tensor cores can do.
        other_flops: all other floating-point operations; a division, a root or an exponential counts as one.
        nbytes: the least that must move: each input and parameter read once, each output, gradient and array kept for
            backward written once.
    """

    product_flops: int = 0
    other_flops: int = 0
    nbytes: int = 0

    @property
    def flops(self) -> int:
        """Return all floating-point operations."""
        return self.product_flops + self.other_flops

    def __add__(self, other: Work) -> Work:
        return Work(
            self.product_flops + other.product_flops,
            self.other_flops + other.other_flops,
            self.nbytes + other.nbytes,
        )


class Cost(NamedTuple):
    """The work of a layer in a training step, and what it keeps between forward and backward.

    Attributes:
        forward, backward: the two phases.
        kept: bytes that it keeps for backward besides its input and its output.
        keeps_input, keeps_output: True if it keeps these, too; one array that two layers keep counts once.
    """

    forward: Work
    backward: Work
    kept: int = 0
    keeps_input: bool = False
    keeps_output: bool = False


Formula = Callable[[Any, Batch, Batch], "Cost | None"]

_FORMULAS: dict[type[Layer], Formula] = {}


def formula(*kinds: type[Layer]) -> Callable[[Formula], Formula]:
    """Declare the cost of layer classes, also of classes outside the library::

        @formula(Scale)
        def scale(layer: Scale, x: Batch, y: Batch) -> Cost:
            forward = Work(other_flops=x.size, nbytes=x.nbytes + layer.k.nbytes + y.nbytes)
            …
            return Cost(forward, backward, keeps_input=True)

    The function takes a layer, its input and its output, and returns the cost of a step. Backward includes the gradient
    of the input where ``layer.input_gradient`` is True. It returns None where the cost is not known.
    """

    def declare(function: Formula) -> Formula:
        _FORMULAS.update(dict.fromkeys(kinds, function))
        return function

    return declare


def cost_of(layer: Layer, x: Batch) -> Cost | None:
    """Return the cost of a layer for an input, or None where it was not declared.

    A subclass costs what its base does, unless it overrides ``forward`` or ``backward``.
    """
    for kind in type(layer).__mro__:
        if kind in _FORMULAS:
            if type(layer).forward is not kind.forward or type(layer).backward is not kind.backward:
                return None
            return _FORMULAS[kind](layer, x, output_of(layer, x))
    return None


def output_of(layer: Layer, x: Batch) -> Batch:
    """Return the shape of what a layer makes of ``x``."""
    return Batch(x.samples, layer.output_shape(x.shape), x.dtype)
