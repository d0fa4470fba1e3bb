"""Profile training steps on a GPU by Nsight: the command runs itself again under nsys or ncu."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click

from backend import inspect_cuda, use
from training.cli.common import Compute, UserError, user_errors
from training.files import json_text
from training.files.durable import write_atomically
from training.files.printable import printable
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings
from training.loop.trainer import Trainer
from training.profile import nsight
from training.profile.cost import Work, cost_of_step
from training.profile.roof import record, roof_of_gpu, summed
from training.profile.steps import LOADER, LOOP, OPTIMIZER


class Prepared(NamedTuple):
    """A trainer that can be profiled, and what it is trained on, in words."""

    trainer: Trainer
    data: str


def profile_with_tool(
    context: click.Context,
    compute: Compute,
    tool: str | None,
    report: Path,
    kernels: str | None,
    steps: int,
    settings: Settings,
    prepare: Callable[[Settings], Prepared],
    run: RunFolder | None,
) -> None:
    """Run this very command again under Nsight, and print what it exported."""
    again = [sys.executable, "-m", "training.cli", "profile", *_options(context, compute), "--tool", "none"]
    try:
        chosen = nsight.choose(tool)
        trainer, works = _works(settings, prepare)
        least = {place: work.nbytes for place, work in works.items()}
        rows = nsight.run(chosen, again, report, kernels)
    except nsight.ToolError as error:
        raise UserError(str(error)) from error
    counted = any(row.bytes is not None for row in rows)
    gpus = inspect_cuda().gpus
    gpu = next((gpu for gpu in gpus if gpu.index == compute.device.index), None)
    peak = gpu.bandwidth / 1e9 if gpu else 0.0
    is_least = not counted and kernels is None
    click.echo(nsight.table(rows, peak or None, steps, least if is_least else None))
    if is_least:
        click.echo(f"{chosen} counts no bytes: MB are the least that must move, as xpnet summary has them")
    if run is not None and kernels is None:
        seconds = summed(((row.layer or _owner(row.phase), row.phase), row.seconds / steps) for row in rows)
        roof = roof_of_gpu(gpu, settings.precision) if gpu else None
        named = {(layer or _owner(phase), phase): work for (phase, layer), work in works.items()}
        keep(run, record(seconds, named, roof, about(trainer, compute, settings, steps)))
    click.echo(f"{chosen}'s report: {printable(nsight.report_file(chosen, report))}")


def _works(settings: Settings, prepare: Callable[[Settings], Prepared]) -> tuple[Trainer, dict[tuple[str, str], Work]]:
    """Return a trainer on the CPU, and the cost of its step with a full batch, by phase and layer as a tool sees it."""
    with use("cpu"):
        of_bytes = replace(settings, precision="fp16" if settings.precision == "fp16" else "fp32")  # no CPU has TF32
        trainer = prepare(of_bytes).trainer
        cost = cost_of_step(trainer.network, trainer.train_loader.largest_batch, trainer.optimizer)
    return trainer, {(phase, "" if layer == OPTIMIZER else layer): work for (layer, phase), work in cost.works.items()}


def _owner(phase: str) -> str:
    """Return the name of the row of what runs in a phase outside of layers."""
    return {"update": OPTIMIZER, "data": LOADER}.get(phase, LOOP)


def about(trainer: Trainer, compute: Compute, settings: Settings, steps: int) -> dict[str, Any]:
    """Return what was profiled, and where, for the record of a profile."""
    return {
        "model": trainer.network.title,
        "batch": trainer.train_loader.largest_batch,
        "precision": settings.precision,
        "device": str(compute.device),
        "threads": compute.threads,
        "steps": steps,
    }


def keep(run: RunFolder, found: dict[str, Any]) -> None:
    """Write the record of a profile into a run's folder."""
    with user_errors():
        write_atomically(run.profile, json_text.dump(found, indent=2).encode())
    click.echo(f"profile {printable(run.profile)}: xpnet report {printable(run.path)} shows it")


def _options(context: click.Context, compute: Compute) -> Sequence[str]:
    """Return the options of this command as given, with the chosen device and threads, without the tool's."""
    values = context.params | {"device": str(compute.device), "threads": compute.threads}
    given = []
    for parameter in context.command.params:
        value = values.get(parameter.name or "")
        if value is not None and parameter.name not in ("tool", "kernels", "report", "run"):
            if isinstance(parameter, click.Argument):
                given.append(os.path.abspath(value))
                continue
            if isinstance(value, bool):
                given += [parameter.opts[0]] * value
                continue
            for each in value if isinstance(value, (tuple, list)) else [value]:
                given += [parameter.opts[0], os.fspath(each) if isinstance(each, Path) else str(each)]
    return given
