"""Learning rates by step: a schedule is a function of the step, ``optimizer.lr = schedule(step)``.

Steps count updates of the parameters, from 0. A schedule returns the learning rate of the step, a Python float. Rates
are finite and at least 0, counts whole numbers: anything else raises a ValueError, or a TypeError if it is not a
number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend.checks import choice, real, refusal, whole

Schedule = Callable[[int], float]

_MOST_STEPS = (1 << 53) - 1  # above this, floats do not distinguish steps


@dataclass(frozen=True)
class ConstantSchedule:
    """The constant learning rate ``lr``."""

    lr: float

    def __post_init__(self) -> None:
        _keep(self, lr=real("lr", self.lr, least=0))

    def __call__(self, step: int) -> float:
        """Return the learning rate of step ``step``."""
        step = whole("step", step, 0, _MOST_STEPS)
        return self.lr


@dataclass(frozen=True)
class StepSchedule:
    """``lr``, multiplied by ``factor`` after every ``every`` steps: lr · factor^⌊step / every⌋.

    Examples:
        >>> from training import StepSchedule
        >>> schedule = StepSchedule(lr=0.5, every=10)
        >>> [schedule(step) for step in (0, 9, 10)]
        [0.5, 0.5, 0.05]
    """

    lr: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        lr, factor = real("lr", self.lr, least=0), real("factor", self.factor, least=0)
        _keep(self, lr=lr, factor=factor, every=whole("every", self.every, 1, _MOST_STEPS, floats=True))

    def __call__(self, step: int) -> float:
        """Return the learning rate of step ``step``."""
        step = whole("step", step, 0, _MOST_STEPS)
        return float(self.lr * self.factor ** (step // self.every))


@dataclass(frozen=True)
class CosineSchedule:
    """Half a cosine from ``lr`` at step 0 down to ``final_lr`` at step ``steps``, where it stays.

    Loshchilov & Hutter 2017 (SGDR), equation 5, without restarts.

    Examples:
        >>> from training import CosineSchedule
        >>> schedule = CosineSchedule(lr=1.0, steps=100)
        >>> [round(schedule(step), 3) for step in (0, 25, 50, 100)]
        [1.0, 0.854, 0.5, 0.0]
    """

    lr: float
    steps: int
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        lr, final_lr = real("lr", self.lr, least=0), real("final_lr", self.final_lr, least=0)
        _keep(self, lr=lr, final_lr=final_lr, steps=whole("steps", self.steps, 1, _MOST_STEPS, floats=True))

    def __call__(self, step: int) -> float:
        """Return the learning rate of step ``step``."""
        step = whole("step", step, 0, _MOST_STEPS)
        done = min(step, self.steps) / self.steps
        return float(self.final_lr + (self.lr - self.final_lr) * (1.0 + math.cos(math.pi * done)) / 2.0)


@dataclass(frozen=True)
class Warmup:
    """A linear warm-up before ``schedule`` (Goyal et al. 2017, section 2.2).

    Step s of the first ``steps`` has (s + 1) / steps of ``schedule(0)``: the first is not wasted on a rate of 0,
    and the last has the full rate. Then ``schedule`` starts with its own step 0, as ``schedule(step - steps)``.

    Examples:
        >>> from training import CosineSchedule, Warmup
        >>> schedule = Warmup(CosineSchedule(lr=1.0, steps=96), steps=4)
        >>> [schedule(step) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    schedule: Schedule
    steps: int

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise refusal(TypeError, "schedule", "a function of the step", self.schedule)
        _keep(self, steps=whole("steps", self.steps, 0, _MOST_STEPS, floats=True))

    def __call__(self, step: int) -> float:
        """Return the learning rate of step ``step``."""
        step = whole("step", step, 0, _MOST_STEPS)
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
"""The names that ``by_name`` accepts."""


def by_name(name: str, lr: float, total_steps: int) -> Schedule:
    """Return the schedule called ``name`` for a training of ``total_steps`` steps (at least 1) that peaks at ``lr``.

    ``"constant"``; ``"step"``: a tenth after each third of the steps; ``"cosine"``: down to 0 at the end;
    ``"warmup-cosine"``: up over the first twentieth of the steps, then the cosine over the rest.

    Raises:
        ValueError: an unknown name, fewer steps than one, or an ``lr`` that is negative or not finite.
    """
    choice("name", name, NAMES)
    total_steps = whole("total_steps", total_steps, 1, _MOST_STEPS, floats=True)
    return _BY_NAME[name](real("lr", lr, least=0), total_steps)


def _keep(schedule: Any, **numbers: float) -> None:
    """Set fields of a frozen schedule to Python numbers."""
    for name, number in numbers.items():
        object.__setattr__(schedule, name, number)
