"""What a sweep searches: values of options, as a TOML file gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.files import clipped

if TYPE_CHECKING:
    import optuna

_RANGE = ("low", "high", "log", "step")


@dataclass(frozen=True)
class OneOf:
    """One of some values, as in ``optimizer = ["adamw", "momentum"]``."""

    values: tuple[Any, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Let optuna choose."""
        return trial.suggest_categorical(name, self.values)

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that all have to be right for the option."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, as in ``lr = {low = 1e-4, high = 0.1, log = true}``: whole if both ends are.

    Attributes:
        log: whether it is chosen evenly by its logarithm.
        step: the distance of the values; None for 1 between whole numbers and any other number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Let optuna choose."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log, step=int(self.step or 1))
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that all have to be right for the option."""
        return self.low, self.high


def read_choice(value: Any) -> OneOf | Range:
    """Return what a value of the file's table ``search`` says.

    Raises:
        ValueError: it is neither a list of values nor a range.
    """
    if isinstance(value, list):
        return _one_of(value)
    if isinstance(value, Mapping):
        return _range(value)
    raise ValueError(
        "expected a list of values, as in [32, 64], or a range, as in {low = 1e-4, high = 0.1, log = true}, "
        f"got {clipped(value)}"
    )


def _one_of(values: list[Any]) -> OneOf:
    for value in values:
        if not isinstance(value, (str, int, float)):
            raise ValueError(f"expected texts, numbers, true or false in the list, got {clipped(value)}")
    if len({(type(value), value) for value in values}) < max(len(values), 1):
        raise ValueError(f"expected different values, at least one, got {clipped(values)}")
    return OneOf(tuple(values))


def _range(given: Mapping[str, Any]) -> Range:
    for key in given:
        if key not in _RANGE:
            raise ValueError(f"unknown {clipped(key)} of a range; expected {', '.join(_RANGE)}")
    for key in ("low", "high", *(["step"] if "step" in given else [])):
        if key not in given:
            raise ValueError(f"a range needs {key}, as in {{low = 1e-4, high = 0.1, log = true}}")
        if not isinstance(given[key], (int, float)) or isinstance(given[key], bool):
            raise ValueError(f"{key}: expected a number, got {clipped(given[key])}")
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"log: expected true or false, got {clipped(log)}")
    found = Range(given["low"], given["high"], log, given.get("step"))
    if not found.low < found.high:
        raise ValueError(f"expected low < high, got {found.low} and {found.high}")
    if log and found.low <= 0:
        raise ValueError(f"a range by its logarithm has low > 0, got {found.low}")
    if log and found.step is not None:
        raise ValueError("a range by its logarithm has no step")
    if found.step is not None and not 0 < found.step <= found.high - found.low:
        raise ValueError(f"expected a step above 0 and at most high - low, got {found.step}")
    is_whole = isinstance(found.low, int) and isinstance(found.high, int)
    if is_whole and not isinstance(found.step, (int, type(None))):
        raise ValueError(f"a range of whole numbers has a whole step, got {found.step}")
    return found
