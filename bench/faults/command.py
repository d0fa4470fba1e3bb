"""``python -m bench faults``."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

import click

import bench.faults
from backend import use
from training.cli.common import Real, count_from

Run = Callable[[int, int], Generator[str | None, None, None]]

COUNT = 100
"""Trials of each injector if neither a number nor a time is given."""

SHOWN = 20
"""Failures of an injector that are printed; the others are counted."""


@dataclass(frozen=True)
class Injector:
    """A module of ``bench.faults`` that has trials."""

    name: str
    about: str
    run: Run


@dataclass(frozen=True)
class Outcome:
    """The result of an injector."""

    trials: int
    failures: list[str]
    seconds: float


def injectors() -> dict[str, Injector]:
    """Return the injectors by name."""
    found = {}
    for module in pkgutil.iter_modules(bench.faults.__path__):
        loaded = importlib.import_module(f"{bench.faults.__name__}.{module.name}")
        if callable(getattr(loaded, "run", None)):
            about = (loaded.__doc__ or "").strip().partition("\n")[0]
            found[module.name] = Injector(module.name, about, loaded.run)
    return found


def inject(injector: Injector, count: int, seed: int, seconds: float | None = None) -> Outcome:
    """Run at most ``count`` trials and start none after ``seconds``; run at least one."""
    start = time.monotonic()
    trials, failures = 0, []
    with closing(injector.run(count, seed)) as run:
        for failure in islice(run, count):
            trials += 1
            if failure is not None:
                failures.append(failure)
            if seconds is not None and time.monotonic() - start >= seconds:
                break
    return Outcome(trials, failures, time.monotonic() - start)


@click.command("faults")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--count", type=count_from(1), help=f"Trials of each at most.  [default: {COUNT}, or as time allows]")
@click.option("--minutes", type=Real(0, min_open=True), help="Time in all, shared among them.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--list", "only_list", is_flag=True, help="Only name the injectors.")
@click.pass_context
def faults(
    context: click.Context,
    names: tuple[str, ...],
    count: int | None,
    minutes: float | None,
    seed: int,
    only_list: bool,
) -> None:
    """Inject faults: damaged files, full disks, kills, misuse.

    Runs the named injectors, or all. Each failure is a line; any makes the exit code 1.
    """
    known = injectors()
    for name in names:
        if name not in known:
            raise click.UsageError(f"unknown injector {name!r}: expected one of {', '.join(known)}")
    if only_list:
        for injector in known.values():
            click.echo(f"{injector.name:<12} {injector.about}")
        return
    chosen = [known[name] for name in dict.fromkeys(names)] or list(known.values())
    end = None if minutes is None else time.monotonic() + 60 * minutes
    most = count or (COUNT if end is None else sys.maxsize)
    broken = False
    with use("cpu"), _no_warnings():
        for left, injector in zip(range(len(chosen), 0, -1), chosen, strict=True):
            share = None if end is None else max(0.0, end - time.monotonic()) / left
            outcome = inject(injector, most, seed, share)
            broken |= bool(outcome.failures)
            click.echo(
                f"{injector.name:<12} {outcome.trials:6} trials  {len(outcome.failures):4} failed  "
                f"{outcome.seconds:6.1f} s"
            )
            for failure in outcome.failures[:SHOWN]:
                click.echo(f"  {failure}")
            if len(outcome.failures) > SHOWN:
                click.echo(f"  and {len(outcome.failures) - SHOWN} more")
    context.exit(1 if broken else 0)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Ignore the warnings that the trials provoke."""
    log = logging.getLogger("xpnet")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
