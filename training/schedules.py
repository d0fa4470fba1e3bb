"""Learning rates over time: a schedule is a function of the step, ``optimizer.lr = schedule(step)``.

Steps count updates of the parameters, from 0. A schedule returns the learning rate of the step, a Python float.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class ConstantSchedule:
    """Always ``lr``."""

    lr: float

    def __post_init__(self) -> None:
        _check_rate("lr", self.lr)

    def __call__(self, step: int) -> float:
        """The learning rate of step ``step``."""
        return float(self.lr)


@dataclass(frozen=True)
class StepSchedule:
    """``lr``, multiplied by ``factor`` after every ``every`` steps: lr · factor^⌊step / every⌋."""

    lr: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_rate("lr", self.lr)
        _check_rate("factor", self.factor)
        _check_count("every", self.every, least=1)

    def __call__(self, step: int) -> float:
        """The learning rate of step ``step``."""
        return float(self.lr * self.factor ** (step // self.every))


@dataclass(frozen=True)
class CosineSchedule:
    """From ``lr`` at step 0 down half a cosine to ``final_lr`` at step ``steps``, where it stays.

    Loshchilov & Hutter 2017 (SGDR), equation 5, without restarts.
    """

    lr: float
    steps: int
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        _check_rate("lr", self.lr)
        _check_rate("final_lr", self.final_lr)
        _check_count("steps", self.steps, least=1)

    def __call__(self, step: int) -> float:
        """The learning rate of step ``step``."""
        done = min(step, self.steps) / self.steps
        return float(self.final_lr + (self.lr - self.final_lr) * (1.0 + math.cos(math.pi * done)) / 2.0)


@dataclass(frozen=True)
class Warmup:
    """A linear warm-up before ``schedule`` (Goyal et al. 2017, section 2.2).

    Step s of the first ``steps`` has (s + 1) / steps of ``schedule(0)``: the first is not wasted on a rate of 0,
    and the last has the full rate. Then ``schedule`` starts with its own step 0, as ``schedule(step - steps)``.
    """

    schedule: Schedule
    steps: int

    def __post_init__(self) -> None:
        _check_count("steps", self.steps, least=0)

    def __call__(self, step: int) -> float:
        """The learning rate of step ``step``."""
        if step < self.steps:
            return float(self.schedule(0) * ((step + 1) / self.steps))
        return self.schedule(step - self.steps)


def _warmup_cosine(lr: float, total_steps: int) -> Schedule:
    warmup = total_steps // 20
    return Warmup(CosineSchedule(lr, total_steps - warmup), warmup)


_BY_NAME: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda lr, total_steps: ConstantSchedule(lr),
    "step": lambda lr, total_steps: StepSchedule(lr, every=math.ceil(total_steps / 3)),
    "cosine": CosineSchedule,
    "warmup-cosine": _warmup_cosine,
}
NAMES = tuple(_BY_NAME)
"""The names that :func:`by_name` knows."""


def by_name(name: str, lr: float, total_steps: int) -> Schedule:
    """The schedule called ``name`` for a training of ``total_steps`` steps (at least 1) that peaks at ``lr``.

    ``"constant"``; ``"step"``: a tenth after each third of the steps; ``"cosine"``: down to 0 at the end;
    ``"warmup-cosine"``: up over the first twentieth of the steps, then the cosine over the rest.

    Raises:
        ValueError: an unknown name, fewer steps than one, or an ``lr`` that is negative or not finite.
    """
    if name not in _BY_NAME:
        raise ValueError(f"unknown schedule {name!r}; there are {', '.join(NAMES)}")
    _check_count("total_steps", total_steps, least=1)
    return _BY_NAME[name](lr, total_steps)


def _check_rate(what: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{what} must be finite and at least 0, got {value!r}")


def _check_count(what: str, value: int, least: int) -> None:
    if value != int(value) or value < least:
        raise ValueError(f"{what} must be a whole number and at least {least}, got {value!r}")
