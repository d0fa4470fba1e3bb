"""Learning rates by step: a schedule is a function of the step, ``optimizer.lr = schedule(step)``.

Steps count updates of the parameters, from 0. A schedule returns the learning rate of the step, a Python float. Rates
are finite and at least 0, counts whole numbers: anything else raises a ValueError, or a TypeError if it is not a
number.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backend.checks import choice, real, refusal, whole
from training.optim.plateau import PlateauSchedule

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
        return _half_cosine(self.lr, self.final_lr, min(step, self.steps) / self.steps)


@dataclass(frozen=True)
class RestartsSchedule:
    """Half cosines from ``lr`` down to ``final_lr``, one after the other (SGDR, Loshchilov & Hutter 2017).

    The first takes ``steps`` steps, each further one ``factor`` times as many as the one before.

    Examples:
        >>> from training import RestartsSchedule
        >>> schedule = RestartsSchedule(lr=1.0, steps=2, factor=2)
        >>> [round(schedule(step), 3) for step in range(7)]
        [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """

    lr: float
    steps: int
    factor: int = 2
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        lr, final_lr = real("lr", self.lr, least=0), real("final_lr", self.final_lr, least=0)
        steps = whole("steps", self.steps, 1, _MOST_STEPS, floats=True)
        factor = whole("factor", self.factor, 1, _MOST_STEPS, floats=True)
        _keep(self, lr=lr, final_lr=final_lr, steps=steps, factor=factor)

    def __call__(self, step: int) -> float:
        """Return the learning rate of step ``step``."""
        step, length = whole("step", step, 0, _MOST_STEPS), self.steps
        if self.factor == 1:
            step %= length
        while step >= length:
            step, length = step - length, length * self.factor
        return _half_cosine(self.lr, self.final_lr, step / length)


@dataclass(frozen=True)
class PolynomialSchedule:
    """From ``lr`` at step 0 down to ``final_lr`` at step ``steps``, where it stays, by a power of what is left.

    final_lr + (lr - final_lr) · (1 - step / steps)^power: a straight line for a ``power`` of 1.

    Examples:
        >>> from training import PolynomialSchedule
        >>> schedule = PolynomialSchedule(lr=1.0, steps=4, power=2)
        >>> [schedule(step) for step in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """

    lr: float
    steps: int
    power: float = 1.0
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        lr, final_lr = real("lr", self.lr, least=0), real("final_lr", self.final_lr, least=0)
        steps, power = whole("steps", self.steps, 1, _MOST_STEPS, floats=True), real("power", self.power, least=0)
        _keep(self, lr=lr, final_lr=final_lr, steps=steps, power=power)

    def __call__(self, step: int) -> float:
        """Return the learning rate of step ``step``."""
        step = whole("step", step, 0, _MOST_STEPS)
        left = 1.0 - min(step, self.steps) / self.steps
        return float(self.final_lr + (self.lr - self.final_lr) * left**self.power)


@dataclass(frozen=True)
class OneCycleSchedule:
    """The one-cycle policy (Smith & Topin 2018): up by half a cosine, and down by another, far below the start.

    It begins at ``lr`` / ``start``, is at ``lr`` after the share ``rise`` of the ``steps``, and ends at
    ``lr`` / (``start`` · ``end``) in the last one, where it stays. The momentum is not changed.

    Examples:
        >>> from training import OneCycleSchedule
        >>> schedule = OneCycleSchedule(lr=1.0, steps=10)
        >>> [round(schedule(step), 3) for step in (0, 1, 2, 6, 9)]
        [0.04, 0.52, 1.0, 0.389, 0.0]
    """

    lr: float
    steps: int
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4

    def __post_init__(self) -> None:
        lr, rise = real("lr", self.lr, least=0), real("rise", self.rise, least=0, most=1)
        start, end = real("start", self.start, least=1), real("end", self.end, least=1)
        steps = whole("steps", self.steps, 1, _MOST_STEPS, floats=True)
        _keep(self, lr=lr, rise=rise, start=start, end=end, steps=steps)

    def __call__(self, step: int) -> float:
        """Return the learning rate of step ``step``."""
        last = self.steps - 1
        step = min(whole("step", step, 0, _MOST_STEPS), last)
        top, first = max(0, round(self.rise * self.steps) - 1), self.lr / self.start
        if step < top:
            return _half_cosine(first, self.lr, step / top)
        return _half_cosine(self.lr, first / self.end, (step - top) / max(1, last - top))


@dataclass(frozen=True)
class Warmup:
    """A linear warm-up before ``schedule`` (Goyal et al. 2017, section 2.2).

    Step s of the first ``steps`` has (s + 1) / steps of ``schedule(0)``: the first is not wasted on a rate of 0,
    and the last has the full rate. Then ``schedule`` starts with its own step 0, as ``schedule(step - steps)``. What a
    schedule with a state, such as ``PlateauSchedule``, is told during the warm-up counts.

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

    def observe(self, score: float) -> None:
        """Tell the schedule an epoch's score, if it wants to know it."""
        observe(self.schedule, score)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the schedule; empty if it has none."""
        state: Callable[[], dict[str, Any]] = getattr(self.schedule, "state_dict", dict)
        return state()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned."""
        if saved:
            self.schedule.load_state_dict(saved)  # type: ignore[attr-defined]


def observe(schedule: Schedule | None, score: float) -> None:
    """Tell a schedule that has a method ``observe`` the score of an epoch, ``EpochResult.score``."""
    told = getattr(schedule, "observe", None)
    if told is not None:
        told(score)


_BY_NAME: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda lr, total_steps: ConstantSchedule(lr),
    "step": lambda lr, total_steps: StepSchedule(lr, every=math.ceil(total_steps / 3)),
    "cosine": CosineSchedule,
    "polynomial": PolynomialSchedule,
    "restarts": lambda lr, total_steps: RestartsSchedule(lr, math.ceil(total_steps / 7)),
    "plateau": lambda lr, total_steps: PlateauSchedule(lr),
}
_WARM = "warmup-"
NAMES = (*_BY_NAME, *(_WARM + name for name in _BY_NAME), "one-cycle")
"""The names that ``by_name`` accepts."""


def by_name(name: str, lr: float, total_steps: int) -> Schedule:
    """Return the schedule called ``name`` for a training of ``total_steps`` steps (at least 1) that peaks at ``lr``.

    ``"constant"``; ``"step"``: a tenth after each third of the steps; ``"cosine"``: down to 0 at the end;
    ``"polynomial"``: a straight line down to 0 at the end; ``"restarts"``: three cosines, each twice as long as the one
    before; ``"plateau"``: a tenth where three epochs in a row were not better; any of them after ``"warmup-"``: up over
    the first twentieth of the steps, then the schedule over the rest; ``"one-cycle"``: up over three tenths of the
    steps from a 25th, then down.

    Raises:
        ValueError: an unknown name, fewer steps than one, or an ``lr`` that is negative or not finite.
    """
    choice("name", name, NAMES)
    total_steps = whole("total_steps", total_steps, 1, _MOST_STEPS, floats=True)
    lr = real("lr", lr, least=0)
    if name == "one-cycle":
        return OneCycleSchedule(lr, total_steps)
    warmup = total_steps // 20 if name.startswith(_WARM) else 0
    schedule = _BY_NAME[name.removeprefix(_WARM)](lr, total_steps - warmup)
    return Warmup(schedule, warmup) if name.startswith(_WARM) else schedule


def _half_cosine(first: float, last: float, done: float) -> float:
    """Return where half a cosine from ``first`` to ``last`` is after the share ``done``."""
    return float(last + (first - last) * (1.0 + math.cos(math.pi * done)) / 2.0)


def _keep(schedule: Any, **numbers: float) -> None:
    """Set fields of a frozen schedule to Python numbers."""
    for name, number in numbers.items():
        object.__setattr__(schedule, name, number)
