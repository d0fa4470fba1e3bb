"""Time training steps of several ranks against one process and PyTorch's: ``python -m bench ranks``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bench import machine, report
from bench.measure import measure
from bench.ranks.team import Team
from bench.sides import installed
from bench.workloads import DisagreementError, Workload, workloads
from training.cli.common import Real, count_from, user_errors

SERIES = {"W2": 20, "W3": 3}
"""Steps for each message to the processes, by workload: enough that the message does not count."""

ONE, DDP = "one process", "torch DDP"

MOST = 1.1
"""What two ranks may take of the time of one process of two threads."""


@click.command("ranks")
@click.option("--only", multiple=True, type=click.Choice(tuple(SERIES)), default=tuple(SERIES), metavar="NAME")
@click.option("--repeats", type=count_from(1), default=20, show_default=True, help="Samples of each side.")
@click.option(
    "--seconds", type=Real(0), default=30.0, show_default=True, help="No further round of a workload after so long."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
@click.pass_context
def ranks(context: click.Context, only: tuple[str, ...], repeats: int, seconds: float, json_file: Path | None) -> None:
    """Time two ranks of one thread against one process of two threads, and against PyTorch's DDP with gloo.

    All train on the same batches, in turn, and their first values are compared. Ends with exit code 1 where two ranks
    take more than 1.1 times the one process's time, or longer than PyTorch.
    """
    with user_errors():
        report.check_folder(json_file)
        try:
            rows = [in_steps(row) for row in measured(only, repeats, seconds)]
        except DisagreementError as error:
            raise ValueError(str(error)) from error
    results: dict[str, Any] = {
        "schema": report.SCHEMA,
        "machine": machine.describe(["torch", "mpi4py"]),
        "settings": {"repeats": repeats, "seconds": seconds},
        "steps": rows,
        "memory": [],
        "epochs": [],
    }
    click.echo(f"{report.header(results)}\n\nxpnet: two ranks of one thread\n{report.table(results)}")
    if json_file:
        report.write_json(results, json_file)
    context.exit(0 if all(is_kept(row["ratios"]) for row in rows) else 1)


def measured(only: tuple[str, ...], repeats: int, seconds: float) -> list[dict[str, Any]]:
    """Return a row for each workload, in the time of ``SERIES`` steps."""
    with ExitStack() as stack:
        teams = [Team("xpnet", "ranks", 2, 1, SERIES), Team(ONE, "xpnet", 1, 2, SERIES)]
        if installed("torch"):
            teams.append(Team(DDP, "ddp", 2, 1, SERIES))
        sides = [stack.enter_context(team) for team in teams]
        found = []
        for workload in workloads():
            if workload.name in only:
                click.echo(workload.name, err=True)
                found.append(measure(by_name(workload), sides, 2, repeats, seconds))
        return found


def by_name(workload: Workload) -> Workload:
    """Return a workload that tells a team its name: the processes make the arrays themselves."""
    return replace(workload, make=lambda batch, dropout: {"workload": workload.name, "dropout": dropout})


def in_steps(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the time of one step, where it has that of a series."""
    count = SERIES[row["workload"]]
    sides = {
        name: {
            **each,
            "ms": each["ms"] / count,
            "quartiles_ms": [quartile / count for quartile in each["quartiles_ms"]],
            "tried_ms": {way: ms / count for way, ms in each["tried_ms"].items()},
        }
        for name, each in row["sides"].items()
    }
    return {**row, "sides": sides}


def is_kept(ratios: dict[str, float]) -> bool:
    """Return whether the ratios are within what is asked for; PyTorch's may be missing."""
    return ratios[ONE] <= MOST and ratios.get(DDP, 0.0) < 1
