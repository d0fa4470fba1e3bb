"""``xpnet check``: compare the results of a GPU with those of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from training.check import (
    TRAININGS,
    CheckRow,
    LockstepResult,
    check_network,
    compare,
    train_file_in_lockstep,
    train_in_lockstep,
)
from training.cli.common import UserError, allow_import_option, choose_compute, count_from, json_option, user_errors
from training.cli.inputs import find_model
from training.files import json_text


@click.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@allow_import_option
@click.option("--device", default="cuda", show_default=True, help="cuda or cuda:<index>.")
@click.option("--steps", type=count_from(0), default=50, show_default=True, help="Training steps; 0 trains nothing.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Seed of the training.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    file: Path | None,
    allow_import: bool,
    device: str,
    steps: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compare a GPU with the CPU: every operation, forward and backward, and training steps from equal parameters.

    FILE is a .safetensors file that says which model it is, or the folder of a run: that network is trained, on random
    samples. Without it, two of xpnet's models are trained on digits. A layer of your own (--allow-import) may be off by
    a multiple of what the CPU is in float32.

    Errors count in units in the last place (ulps) of what a number is the sum of, and each has a bound that follows
    from the operation; an operation that does not round has to be exact. Exit code 1 if anything is wrong.
    """
    compute = choose_compute(device, None)
    if compute.device.kind != "cuda":
        raise UserError(f"check compares a GPU with the CPU; {compute} is not a GPU")
    chosen = None if file is None else find_model(file)
    with user_errors():
        if chosen is not None:
            check_network(chosen, allow_import)
    rows: list[CheckRow] = []
    trainings: list[LockstepResult] = []
    if not as_json:
        click.echo(f"{'operation':<29}{'cases':>6}{'error':>12}{'allowed':>9}  verdict")
    for row in compare(compute.device.name):
        rows.append(row)
        if not as_json:
            click.echo(_operation_line(row))
    for train in _trainings(compute.device.name, chosen, allow_import, seed) if steps else ():
        trainings.append(train(steps=steps))
        if not as_json:
            click.echo(_training_line(trainings[-1]))
    passed = all(row.passed for row in rows) and all(training.passed for training in trainings)
    if as_json:
        report = {
            "device": compute.device.name,
            "passed": passed,
            "operations": [{**asdict(row), "passed": row.passed} for row in rows],
            "training": [{**asdict(training), "passed": training.passed} for training in trainings],
        }
        click.echo(json_text.dump(report))
    else:
        click.echo("the device computes what the CPU computes" if passed else "the device is WRONG")
    context.exit(0 if passed else 1)


def _trainings(device: str, file: Path | None, allow_import: bool, seed: int) -> list[Callable[..., LockstepResult]]:
    """Return the trainings to compare, as functions of the number of steps."""
    if file is not None:
        return [partial(train_file_in_lockstep, device, file, seed=seed, allow_import=allow_import)]
    return [
        partial(train_in_lockstep, device, model=model, optimizer=optimizer, seed=seed)
        for model, optimizer in TRAININGS
    ]


def _operation_line(row: CheckRow) -> str:
    error = "exact" if row.error == 0 else f"{row.error:.3g} ulps"
    verdict = "ok" if row.passed else f"WRONG ({row.worst})"
    return f"{row.operation:<29}{row.cases:>6}{error:>12}{row.tolerance:>9.3g}  {verdict}"


def _training_line(training: LockstepResult) -> str:
    name, wrong = f"{training.model} with {training.optimizer}", training.divergence
    if wrong is None:
        return (
            f"{name}: {training.steps} steps ok, errors up to {training.share:.0%} of what is allowed, losses within "
            f"{training.loss_difference:.1e}"
        )
    if not wrong.layer:
        return f"{name}: WRONG, step {wrong.step} raised {wrong.array}"
    return (
        f"{name}: WRONG in step {wrong.step}, {wrong.layer}: {wrong.array} is off by {wrong.error:.3g} ulps, "
        f"{wrong.tolerance:.3g} are allowed"
    )
