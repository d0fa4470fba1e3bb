"""Measure the cost of a training step's profiling ranges while no profiler listens.

Their cost is too small to see in the time of a step. It is computed as the recorded number of ranges that a step enters
in each way, times the time of one range in an empty loop.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import numpy as np

from backend import profiling, use
from backend.recording import Event, Recorder
from backend.types import Array
from bench.measure import thread_limit
from training.data import Loader
from training.loop.trainer import Trainer
from training.models import TwoLayerNet
from training.optim.optimizers import SGD
from training.terminal.tables import aligned

BATCH, STEPS = 100, 400
CALLS, ROUNDS = 1_000, 300
LIMIT = 0.01


class Cost(NamedTuple):
    """Seconds of a step; and for each way to enter a range, their number in a step and the seconds of one."""

    step: float
    counts: dict[str, float]
    each: dict[str, float]

    @property
    def share(self) -> float:
        """The share of a step that the ranges take."""
        return sum(count * self.each[way] for way, count in self.counts.items()) / self.step


@click.command("ranges")
@click.pass_context
def ranges(context: click.Context) -> None:
    """Measure what the ranges for profilers take of a training step while no profiler listens.

    The step is that of the MLP 784-50-10, batch 100, on one thread: the shortest of the bench. Ends with exit code 1
    where they take more than 1 % of it.
    """
    use("cpu")
    with thread_limit(1, []):
        cost = measure_ranges()
    lines = [("entered by", "a step", "ns each", "us a step")]
    for way, count in cost.counts.items():
        each = cost.each[way]
        lines.append((way, f"{count:.4g}", f"{1e9 * each:.0f}", f"{1e6 * count * each:.3f}"))
    for line in aligned(lines):
        click.echo(line)
    click.echo(
        f"{sum(cost.counts.values()):.4g} ranges in a step of {1e6 * cost.step:.0f} us take {cost.share:.2%} of it; "
        f"at most {LIMIT:.0%} is wanted"
    )
    context.exit(1 if cost.share > LIMIT else 0)


def measure_ranges() -> Cost:
    """Count and time the ranges of a step, which takes about two seconds."""
    trainer = _trainer()
    for _ in trainer.steps(1):  # builds what the first steps build
        pass
    with Recorder() as recorder:
        for _ in trainer.steps(2):
            pass
    counts = Counter(_way(event) for event in recorder.events)
    moments = [time.perf_counter() for _ in trainer.steps(3)]
    seconds = statistics.median(after - before for before, after in itertools.pairwise(moments))
    return Cost(seconds, {way: count / STEPS for way, count in counts.items()}, _each())


def _way(event: Event) -> str:
    if event.kind == "operation":
        return "operation"
    return "push and pop" if event.kind == "layer" and event.name != "loss" else "with"


def _each() -> dict[str, float]:
    """Return the seconds of a range in each way, without the time of the call itself."""
    entered, x, y = profiling.Range("range"), np.ones(1), np.ones(1)

    def nothing(a: Any, b: Array) -> None:
        pass

    def loop(body: Callable[[], None]) -> float:
        return min(_seconds(body) for _ in range(ROUNDS))

    ranged = profiling.operation(nothing)

    def push_and_pop() -> None:
        entered.push(x)
        try:
            pass
        finally:
            profiling.pop()

    def with_given() -> None:
        with entered.of((x, y)):
            pass

    empty = loop(lambda: None)
    return {
        "with": loop(with_given) - empty,
        "push and pop": loop(push_and_pop) - empty,
        "operation": loop(lambda: ranged(x, y)) - loop(lambda: nothing(x, y)),
    }


def _seconds(body: Callable[[], None]) -> float:
    """Return the mean seconds of a call, over many calls."""
    start = time.perf_counter()
    for _ in range(CALLS):
        body()
    return (time.perf_counter() - start) / CALLS


def _trainer() -> Trainer:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH * STEPS, 784), "uint8")
    labels = generator.integers(0, 10, BATCH * STEPS)
    train, test = (Loader(images, labels, BATCH) for _ in range(2))
    return Trainer(TwoLayerNet(784, 50, 10), train, test, SGD(0.1), epochs=1)
