"""Time several sides in turn, so that other programs on the machine disturb all of them alike.

A sample during which other programs made threads wait for a CPU does not count: Linux reports in /proc/pressure/cpu for
how long some thread was ready to run but not running.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.sides.base import Case

PRESSURE_FILE = Path("/proc/pressure/cpu")
SAMPLE_SECONDS = 0.1
"""A sample consists of as many steps as fill this time: as in training, and since sleeping threads are placed on cores
only after some steps."""
PRESSURE_SHARE = 0.05
"""A sample counts if some thread waited during at most this share of it. With no more threads than cores, and the other
sides' threads asleep, our own threads hardly wait; a wake-up of the system's daemons costs about 10 µs."""
PAUSE_SECONDS = 0.2
"""Seconds between two sides that use several threads: the threads of OpenMP and BLAS spin for about this long before
they sleep, and would take a core from the next side."""
TRIES = 3
"""The most rounds for each repeat."""
FEWEST = 3
"""The least number of rounds, whatever their time."""


@dataclass
class Samples:
    """Seconds of one step, once for each sample.

    Attributes:
        steps: number of steps in a sample.
        seconds: of a step, in the samples that count.
        disturbed: the same, in the samples that do not.
    """

    steps: int
    seconds: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)

    @property
    def is_disturbed(self) -> bool:
        """True if too few samples count; the figures are then those of all."""
        return len(self.seconds) < FEWEST

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile."""
        counted = self.seconds + self.disturbed if self.is_disturbed else self.seconds
        if len(counted) == 1:
            return (counted[0],) * 3
        low, median, high = statistics.quantiles(counted, n=4, method="inclusive")
        return low, median, high


def waited() -> float | None:
    """Return the seconds since the system's start in which some thread waited for a CPU; None if the system does not
    count them."""
    try:
        some = PRESSURE_FILE.read_text().splitlines()[0]
    except OSError:
        return None
    return int(some.rpartition("total=")[2]) / 1e6


def take_turns(
    cases: Mapping[str, Case],
    *,
    repeats: int,
    seconds: float,
    pause: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    pressure: Callable[[], float | None] = waited,
) -> dict[str, Samples]:
    """Return samples of all cases, one of each in every round.

    Args:
        cases: by name.
        repeats: number of samples of each that have to count.
        seconds: no further round starts after this time, nor after ``TRIES`` · ``repeats`` rounds.
        pause: seconds between two cases.
        clock, pressure: functions that are called before and after a sample.
    """
    samples = {name: Samples(_steps(case, clock)) for name, case in cases.items()}
    start = clock()
    for number in range(TRIES * repeats):
        if number >= min(FEWEST, repeats) and clock() - start >= seconds:
            break
        for name, case in cases.items():
            _sample(case, samples[name], pause, clock, pressure)
        if all(len(each.seconds) >= repeats for each in samples.values()):
            break
    return samples


def quick_time(case: Case, seconds: float = 0.3, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the least seconds of a step among those in a short time: for a choice, not for a report."""
    with case.inside():
        case.step()
        return min(_durations(case, seconds, clock))


def _steps(case: Case, clock: Callable[[], float]) -> int:
    with case.inside():
        case.step()  # the first step builds state and buffers
        return max(1, math.ceil(SAMPLE_SECONDS / min(_durations(case, 0.1, clock))))


def _durations(case: Case, seconds: float, clock: Callable[[], float]) -> Iterable[float]:
    start = clock()
    for number in range(1000):
        before = clock()
        case.step()
        after = clock()
        yield max(after - before, 1e-9)
        if number >= 1 and after - start >= seconds:
            return


def _sample(
    case: Case,
    samples: Samples,
    pause: float,
    clock: Callable[[], float],
    pressure: Callable[[], float | None],
) -> None:
    time.sleep(pause)
    with case.inside():
        for _ in range(samples.steps // 2):
            case.step()  # refill the cache after the other sides; in a long step that does not matter
        waited_before, start = pressure(), clock()
        for _ in range(samples.steps):
            case.step()
        seconds, waited_after = clock() - start, pressure()
    waiting = 0.0 if waited_before is None or waited_after is None else waited_after - waited_before
    kept = waiting <= PRESSURE_SHARE * seconds
    (samples.seconds if kept else samples.disturbed).append(seconds / samples.steps)
