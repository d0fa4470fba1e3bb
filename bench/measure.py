"""Time a workload on all sides, and return the figures for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import threadpoolctl

from backend import threads
from bench import timing
from bench.sides import Case, Side
from bench.sides.base import Values
from bench.workloads import Workload, check_agreement, first_values


@contextmanager
def thread_limit(count: int, sides: Sequence[Side]) -> Iterator[None]:
    """Limit xpnet, NumPy's BLAS and every side to ``count`` threads; restore the limits of xpnet and BLAS at the
    end."""
    before = threads.limit()
    threads.set_limit(count)
    try:
        with threadpoolctl.threadpool_limits(count, user_api="blas"):
            for side in sides:
                side.set_threads(count)
            yield
    finally:
        threads.set_limit(before)


def measure(workload: Workload, sides: Sequence[Side], count: int, repeats: int, seconds: float) -> dict[str, Any]:
    """Time a workload with ``count`` threads, each side in the way that is fastest for it.

    Args:
        sides: xpnet first, then peers; sides that cannot do the work are left out.
        repeats, seconds: as for ``bench.timing.take_turns``.

    Raises:
        DisagreementError: a side's results differ from xpnet's.
    """
    with thread_limit(count, sides):
        cases: dict[str, Case] = {}
        ways: dict[str, dict[str, float]] = {}
        expected = first_values(workload, sides[0])
        for side in sides:
            chosen = _fastest(workload, side, None if side is sides[0] else expected)
            if chosen is not None:
                ways[side.name], cases[side.name] = chosen
        pause = timing.PAUSE_SECONDS if count > 1 else 0.0
        samples = timing.take_turns(cases, repeats=repeats, seconds=seconds, pause=pause)
    figures = {name: _figures(samples[name], ways[name]) for name in cases}
    return {
        "workload": workload.name,
        "title": workload.title,
        "threads": count,
        "sides": figures,
        "ratios": ratios({name: each["ms"] for name, each in figures.items()}),
    }


def ratios(figures: dict[str, float]) -> dict[str, float]:
    """Return xpnet's figure divided by each peer's: below 1, xpnet needs less."""
    return {name: figures["xpnet"] / value for name, value in figures.items() if name != "xpnet"}


def _fastest(workload: Workload, side: Side, expected: Values | None) -> tuple[dict[str, float], Case] | None:
    """Return the seconds of a side's ways, the fastest first, and the case of that one; check each way's values."""
    cases: dict[str, Case] = {}
    for way in workload.ways(side):
        case = workload.case(side, way)
        if case is None:
            return None
        if expected is not None:
            name = f"{side.name} ({way})" if way else side.name
            check_agreement(workload, name, first_values(workload, side, way), expected)
        cases[way] = case
    times = dict.fromkeys(cases, 0.0)
    if len(cases) > 1:
        rounds = [{way: timing.quick_time(case) for way, case in cases.items()} for _ in range(2)]
        times = {way: min(each[way] for each in rounds) for way in cases}
    times = dict(sorted(times.items(), key=lambda each: each[1]))
    return times, cases[next(iter(times))]


def _figures(samples: timing.Samples, ways: dict[str, float]) -> dict[str, Any]:
    low, median, high = (1e3 * quartile for quartile in samples.quartiles)
    return {
        "ms": median,
        "quartiles_ms": [low, high],
        "samples": len(samples.seconds),
        "discarded": len(samples.disturbed),
        "disturbed": samples.is_disturbed,
        "steps_in_a_sample": samples.steps,
        "way": next(iter(ways)),
        "tried_ms": {way: 1e3 * seconds for way, seconds in ways.items()} if len(ways) > 1 else {},
    }
