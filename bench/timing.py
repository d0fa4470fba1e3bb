"""Samples of several sides taken in turn, so that what disturbs the machine disturbs them alike.

A sample during which other programs made this machine's threads wait for a CPU is not counted: Linux says in
/proc/pressure/cpu for how long in all some thread was ready to run and was not running.
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
"""A sample is as many steps as fill this time: training goes on and on, and threads that were asleep are placed on
cores only after some steps."""
PRESSURE_SHARE = 0.05
"""A sample counts if some thread waited during at most this share of it. With no more threads than cores and the
other sides' threads asleep, ours explain next to nothing; a wake-up of the system's own daemons costs some 10 µs."""
PAUSE_SECONDS = 0.2
"""Between two sides, where there are several threads: those of OpenMP and of BLAS spin for so long before they
sleep, and would take a core from the next."""
TRIES = 3
"""At most so many rounds are made for each one that is wanted."""
FEWEST = 3
"""Rounds that are made whatever the time."""


@dataclass
class Samples:
    """Seconds of one step, once for each sample.

    Attributes:
        steps: in a sample.
        seconds: of the samples that count.
        disturbed: of those that do not.
    """

    steps: int
    seconds: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)

    @property
    def is_disturbed(self) -> bool:
        """Whether too few samples count; the figures are then those of all."""
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
    """Return seconds, since the system's start, in which some thread waited for a CPU; None where nobody counts
    them."""
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
        repeats: samples of each that have to count.
        seconds: no further round begins after so long, nor after ``TRIES`` · ``repeats`` rounds.
        pause: seconds between two cases.
        clock, pressure: what is read before and after a sample.
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
    """Return the least seconds of a step among those that fit into a short time: to choose, not to report."""
    with case.inside():
        case.step()
        return min(_durations(case, seconds, clock))


def _steps(case: Case, clock: Callable[[], float]) -> int:
    with case.inside():
        case.step()  # the first builds state and buffers
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
            case.step()  # what the other sides put out of the cache comes back; in a long step that is nothing
        waited_before, start = pressure(), clock()
        for _ in range(samples.steps):
            case.step()
        seconds, waited_after = clock() - start, pressure()
    waiting = 0.0 if waited_before is None or waited_after is None else waited_after - waited_before
    kept = waiting <= PRESSURE_SHARE * seconds
    (samples.seconds if kept else samples.disturbed).append(seconds / samples.steps)
