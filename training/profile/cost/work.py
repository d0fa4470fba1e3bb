"""What a layer's work is counted in, and how a layer comes to say it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from kernels.core.dtypes import acc_dtype
from layers import Layer
from layers.base import Shape


class Array(NamedTuple):
    """A batch as a layer takes or makes it: (samples, \\*shape) of ``dtype``.

    ``channels_last`` is False for images whose memory is not: the network's own input. A layer copies such images
    before it works on them.
    """

    samples: int
    shape: Shape
    dtype: numpy.dtype
    channels_last: bool = True

    @property
    def size(self) -> int:
        """Numbers in all."""
        return self.samples * math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return self.size * self.dtype.itemsize

    @property
    def sums(self) -> numpy.dtype:
        """The dtype in which such numbers are summed."""
        return acc_dtype(self.dtype)

    @property
    def must_be_turned(self) -> bool:
        """Whether channels-last memory of it takes a copy."""
        return not self.channels_last and len(self.shape) == 3 and moves((self.shape[0], math.prod(self.shape[1:])))


def moves(shape: Shape, order: tuple[int, ...] | None = None) -> bool:
    """Whether an array of ``shape`` with its axes put in ``order`` (by default reversed) has its numbers in another
    order, so that to make it contiguous takes a copy."""
    order = tuple(reversed(range(len(shape)))) if order is None else order
    kept = [axis for axis in order if shape[axis] > 1]
    return kept != sorted(kept)


class Work(NamedTuple):
    """What is done in one phase.

    Attributes:
        product_flops: multiplications and additions in matrix products, which tensor cores can do.
        other_flops: all other operations on floating-point numbers; a division, root or exponential is one.
        nbytes: the least that must move: each input and parameter read once, each output, gradient and array kept for
            backward written once.
        launches: kernels and cuBLAS products on a GPU. What the driver copies or fills is none.
        workspace: the most bytes of scratch at a time on a GPU, columns within their cap
            (``kernels.core.tiling.COLUMN_BYTES``).
    """

    product_flops: int = 0
    other_flops: int = 0
    nbytes: int = 0
    launches: int = 0
    workspace: int = 0

    @property
    def flops(self) -> int:
        """All floating-point operations."""
        return self.product_flops + self.other_flops

    def then(self, other: Work) -> Work:
        """This and, after it, ``other``: everything adds up but scratch, which is given back between them."""
        return Work(
            self.product_flops + other.product_flops,
            self.other_flops + other.other_flops,
            self.nbytes + other.nbytes,
            self.launches + other.launches,
            max(self.workspace, other.workspace),
        )


class Cost(NamedTuple):
    """What a layer does in a training step, and what it keeps in between.

    Attributes:
        forward, backward: the two phases.
        kept: bytes that it holds for backward beyond its input and its output.
        keeps_input, keeps_output: whether it holds these, too; one array that two layers hold counts once.
        relu_launches: what a Relu launches that is done along with its forward: the maximum with 0 and the mask, for
            each part in which forward is done.
    """

    forward: Work
    backward: Work
    kept: int = 0
    keeps_input: bool = False
    keeps_output: bool = False
    relu_launches: int = 2


Formula = Callable[[Any, Array, Array], "Cost | None"]

_FORMULAS: dict[type[Layer], Formula] = {}


def formula(*kinds: type[Layer]) -> Callable[[Formula], Formula]:
    """Declares the cost of layers of some classes, one's own among them::

        @formula(Scale)
        def scale(layer: Scale, x: Array, y: Array) -> Cost:
            forward = Work(other_flops=x.size, nbytes=x.nbytes + layer.k.nbytes + y.nbytes, launches=1)
            …
            return Cost(forward, backward, keeps_input=True)

    The function takes a layer, its input and its output, and returns the cost of a step, backward with the gradient of
    the input where ``layer.input_gradient``; or None, where it does not know it.
    """

    def declare(function: Formula) -> Formula:
        _FORMULAS.update(dict.fromkeys(kinds, function))
        return function

    return declare


def cost_of(layer: Layer, x: Array) -> Cost | None:
    """The cost of a layer for an input, or None where nobody declared it.

    A subclass costs what its base does, unless it has a forward or a backward of its own.
    """
    for kind in type(layer).__mro__:
        if kind in _FORMULAS:
            if type(layer).forward is not kind.forward or type(layer).backward is not kind.backward:
                return None
            return _FORMULAS[kind](layer, x, output_of(layer, x))
    return None


def output_of(layer: Layer, x: Array) -> Array:
    """What a layer makes of ``x``."""
    return Array(x.samples, layer.output_shape(x.shape), x.dtype)
