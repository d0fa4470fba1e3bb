"""Branches of a graph that meet in sums or side by side, as layers: chains, residual connections and skips.

Every value has a dominator: the nearest value through which all paths from the graph's input to it pass. Of a node with
one input it is that input, of a sum, or of two values side by side, the value where the two branches part.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from layers import Layer, Residual, Sequential, Skip
from layers.base import Shape
from training.interop.onnx_reading import Node
from training.interop.onnx_tidy import Item, tidied
from training.models.architecture import DEEPEST


@dataclass(eq=False)
class Value:
    """A value of the graph that depends on its input.

    Attributes:
        name: of the value.
        title: what errors call the node that makes it.
        shape: of a sample.
        dominator: as above; None of the graph's input.
        items: what computes it from its dominator, if it is no sum.
        branches: the two values that it is the sum of.
        beside: of a value that is its dominator with another one beside it, that one.
        layout: "", or where the batch is not first, that of ``onnx_steps``.
        problem: why there are no layers for it; "" if there are.
    """

    name: str
    title: str
    shape: Shape
    dominator: Value | None = None
    items: list[Item] = field(default_factory=list)
    branches: tuple[Value, Value] | None = None
    beside: Value | None = None
    layout: str = ""
    problem: str = ""

    def __post_init__(self) -> None:
        self.depth: int = 0 if self.dominator is None else self.dominator.depth + 1


def parting(one: Value, other: Value) -> Value:
    """Return the nearest value through which all paths to both pass; it may be one of them."""
    while one is not other:
        if one.depth < other.depth:
            one, other = other, one
        assert one.dominator is not None  # only the input has none, and both depend on it
        one = one.dominator
    return one


def joined_shape(node: Node, first: Value, second: Value) -> Shape:
    """Return the shape of samples of two values side by side, as ``Skip`` puts them.

    Raises:
        ValueError: they are joined along another axis, or do not fit.
    """
    rank, axis = len(first.shape) + 1, node.attributes.get("axis", 1)
    channels = 1 if rank == 4 else rank - 1
    if not -rank <= axis < rank or axis % rank != channels:
        raise ValueError(f"expected values side by side along the axis {channels}, the channels, got {axis}")
    own, other = first.shape, second.shape
    if len(own) != len(other) or own[: channels - 1] + own[channels:] != other[: channels - 1] + other[channels:]:
        raise ValueError(f"it joins samples of {own} and {other}")
    return (*own[: channels - 1], own[channels - 1] + other[channels - 1], *own[channels:])


class Branches:
    """Layers of the paths between values, each made once.

    Args:
        dtype: of the layers.
    """

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._used: set[Value] = set()

    def path(self, start: Value, end: Value, nested: int = 0) -> list[Layer]:
        """Return the layers that compute ``end`` from ``start``, its dominator or that of it, and so on.

        Raises:
            ValueError: branches part or meet otherwise than around a residual connection or a skip, or are nested too
                deep.
        """
        if nested > DEEPEST:
            raise ValueError(f"expected branches in at most {DEEPEST} others")
        parts: list[list[Item]] = []
        while end is not start:
            if end in self._used:
                raise ValueError(
                    f"the node {end.title}: its output goes to several branches that do not meet in one sum; layers "
                    "have chains, residual connections and skips"
                )
            if end.items or end.branches or end.beside:
                self._used.add(end)
            assert end.dominator is not None
            if end.branches is not None:
                parts.append([self._sum(end.dominator, *end.branches, nested)])
            elif end.beside is not None:
                parts.append([Skip(Sequential(*self.path(end.dominator, end.beside, nested + 1)))])
            else:
                parts.append(end.items)
            end = end.dominator
        return tidied([item for part in reversed(parts) for item in part], start.shape, self._dtype)

    def _sum(self, start: Value, one: Value, other: Value, nested: int) -> Residual:
        body, shortcut = (self.path(start, branch, nested + 1) for branch in (one, other))
        if not body:
            body, shortcut = shortcut, body
        if len(shortcut) > 1:
            return Residual(Sequential(*body), Sequential(*shortcut))
        return Residual(Sequential(*body), *shortcut)
