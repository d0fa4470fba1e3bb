"""Parameter groups: parameters with a learning rate and weight decay of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from backend.checks import instance, real
from backend.types import Array
from training.models.freezing import matching


class Group(NamedTuple):
    """Parameters by the pattern of their names, and what differs for them.

    Attributes:
        pattern: as ``training.models.freezing.matching`` takes it.
        factor: of the optimizer's learning rate.
        weight_decay: in place of the optimizer's; None leaves it.
    """

    pattern: str
    factor: float = 1.0
    weight_decay: float | None = None


EVERYTHING = Group("*")


def checked_group(pattern: str, lr: float | None, weight_decay: float | None, base: float) -> Group:
    """Return the group of the arguments of ``Optimizer.group``, where the optimizer's learning rate is ``base``."""
    instance("pattern", pattern, str, "a pattern of parameters' names, such as 'Convolution*'")
    if weight_decay is not None:
        weight_decay = real("weight_decay", weight_decay, least=0)
    factor = 1.0
    if lr is not None:
        lr = real("lr", lr, least=0)
        if not base:
            raise ValueError("a group's lr is kept as a factor of the optimizer's, which is 0")
        factor = lr / base
    return Group(pattern, factor, weight_decay)


class Run(NamedTuple):
    """Parameters that follow each other in a flat buffer and belong to one group."""

    start: int
    stop: int
    group: Group


def groups_of(params: Mapping[str, Array], groups: tuple[Group, ...]) -> dict[str, Group]:
    """Return the group of each parameter that is not frozen; the first whose pattern matches counts.

    Raises:
        ValueError: a pattern matches no parameter.
    """
    dotted = {name: name for name in params} | getattr(params, "dotted", {})
    found: dict[str, Group] = {}
    for group in groups:
        names = matching(dotted, group.pattern)
        if not names:
            raise ValueError(f"group {group.pattern!r} matches no parameter; there are {', '.join(dotted.values())}")
        for name in names:
            found.setdefault(name, group)
    frozen = getattr(params, "frozen", ())
    return {name: found.get(name, EVERYTHING) for name in params if name not in frozen}


def runs_of(params: Mapping[str, Array], group_of: Mapping[str, Group]) -> list[Run]:
    """Return the parts of a flat buffer that are updated alike, as long as they can be; frozen ones are left out."""
    runs: list[Run] = []
    start = 0
    for name, array in params.items():
        stop, group = start + array.size, group_of.get(name)
        if group is not None and array.size:
            if runs and runs[-1].stop == start and runs[-1].group == group:
                runs[-1] = runs[-1]._replace(stop=stop)
            else:
                runs.append(Run(start, stop, group))
        start = stop
    return runs
