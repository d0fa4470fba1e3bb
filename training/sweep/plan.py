"""The plan of a sweep: what all runs share, what is searched, and by which figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from training.files import clipped
from training.loop.settings import PARTS
from training.sweep.space import OneOf, Range, read_choice

FALLING = ("loss", "mae")
"""The figures that are better when they are lower."""

_OWN = {"trials": 20, "metric": "accuracy", "prune": True, "seed": 0}


@dataclass(frozen=True)
class Plan:
    """The plan of a sweep.

    Attributes:
        shared: options of ``xpnet train`` that all runs share, by name.
        search: what is searched, by the options' names.
        trials: how many runs are made.
        metric: the figure of the evaluated part by which runs are compared: "accuracy", "loss", or one of ``metrics``.
        prune: whether runs that are worse than the median of others after as many epochs are ended.
        seed: of the choices.
    """

    shared: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, OneOf | Range] = field(default_factory=dict)
    trials: int = 20
    metric: str = "accuracy"
    prune: bool = True
    seed: int = 0

    @property
    def falls(self) -> bool:
        """Whether the best value of the metric is the lowest."""
        return self.metric in FALLING

    def value(self, epoch: Mapping[str, Any]) -> float:
        """Return the metric of an epoch, as ``xpnet train --json`` prints it.

        Raises:
            ValueError: the epoch has no such number.
        """
        figures = {key.partition("_")[2]: epoch[key] for key in epoch if key.partition("_")[0] in PARTS}
        numbers = {
            name: float(value)
            for name, value in {**figures, **epoch.get("metrics", {})}.items()
            if isinstance(value, (int, float))
        }
        if self.metric not in numbers:
            raise ValueError(f"the runs have no {self.metric}: set metric in [sweep] to one of {', '.join(numbers)}")
        return numbers[self.metric]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan in the types of JSON, of which ``read`` makes it again."""
        search = {name: list(c.values) if isinstance(c, OneOf) else _given(c) for name, c in self.search.items()}
        own = {name: getattr(self, name) for name in _OWN}
        return {**self.shared, "search": search, "sweep": own}

    @classmethod
    def read(cls, content: Mapping[str, Any], check: Callable[[str, Any], str]) -> Plan:
        """Return the plan that a file holds: options, and the tables ``search`` and ``sweep``.

        Args:
            content: of the file.
            check: returns an option's name if a value is right for it, and else raises ValueError.

        Raises:
            ValueError: something is wrong; the message begins with its name.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"expected settings by name, got {clipped(content)}")
        for name in ("search", "sweep"):
            if not isinstance(content.get(name, {}), Mapping):
                raise ValueError(f"{name}: expected a table, [{name}], got {clipped(content[name])}")
        shared, search = {}, {}
        for name, value in content.items():
            if name not in ("search", "sweep"):
                shared[check(name, value)] = value
        for name, value in content.get("search", {}).items():
            try:
                choice = read_choice(value)
            except ValueError as error:
                raise ValueError(f"search.{name}: {error}") from error
            (key,) = {check(name, example) for example in choice.examples}
            if key in shared or key in search:
                raise ValueError(f"{name} is given twice")
            search[key] = _of_its_kind(choice, name, check)
        if not search:
            raise ValueError("nothing to search: expected a table [search], as in lr = {low = 1e-4, high = 0.1}")
        return cls(shared, search, **_own(content.get("sweep", {})))


def _of_its_kind(choice: OneOf | Range, name: str, check: Callable[[str, Any], str]) -> OneOf | Range:
    """Return a range between whole numbers as one of all numbers where the option takes them."""
    if not isinstance(choice, Range) or choice.step is not None:
        return choice
    try:
        check(name, choice.low + 0.37 * (choice.high - choice.low))
    except ValueError:
        return choice
    return replace(choice, low=float(choice.low), high=float(choice.high))


def _given(choice: Range) -> dict[str, Any]:
    return {name: value for name, value in asdict(choice).items() if value is not None}


def _own(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sweep's own settings, checked."""
    found = {**_OWN, **table}
    for name, value in found.items():
        if name not in _OWN:
            raise ValueError(f"sweep: unknown name {clipped(name)}; expected {', '.join(_OWN)}")
        if type(value) is not type(_OWN[name]):
            kinds = {int: "a whole number", str: "a text", bool: "true or false"}
            raise ValueError(f"sweep.{name}: expected {kinds[type(_OWN[name])]}, got {clipped(value)}")
    for name, least, most in (("trials", 1, 1_000_000), ("seed", 0, 2**31)):
        if not least <= found[name] <= most:
            raise ValueError(f"sweep.{name}: expected {least} to {most:,}, got {found[name]}")
    return found
