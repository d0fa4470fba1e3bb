"""``xpnet check``: whether this GPU computes what the CPU computes."""

from __future__ import annotations

from dataclasses import asdict

import click

from training.cli.common import UserError, choose_compute, json_option
from training.files import json_text


@click.command("check")
@click.option("--device", default="cuda", show_default=True, help="cuda or cuda:<index>.")
@click.option("--steps", type=click.IntRange(min=0), default=50, show_default=True, help="Of training, side by side.")
@json_option
@click.pass_context
def command(context: click.Context, device: str, steps: int, as_json: bool) -> None:
    """Compare every operation on a GPU with the CPU, forward and backward, and train on both side by side.

    Errors count in units in the last place of the largest number of an array. Exit code 1 if one is too large.
    """
    compute = choose_compute(device, None)
    if compute.device.kind != "cuda":
        raise UserError(f"check compares a GPU with the CPU; {compute} is no GPU")
    from training.check import compare
    from training.side_by_side import train_side_by_side

    rows = []
    if not as_json:
        click.echo(f"{'operation':<29}{'cases':>6}{'error':>12}{'allowed':>9}  verdict")
    for row in compare(compute.device.name):
        rows.append(row)
        if not as_json:
            error = "exact" if row.error == 0 else f"{row.error:.3g} ulps"
            verdict = "ok" if row.passed else f"WRONG ({row.worst})"
            click.echo(f"{row.operation:<29}{row.cases:>6}{error:>12}{row.tolerance:>9.3g}  {verdict}")
    parting = train_side_by_side(compute.device.name, steps) if steps else None
    passed = all(row.passed for row in rows) and (parting is None or parting.step is None)
    if as_json:
        operations = [{**asdict(row), "passed": row.passed} for row in rows]
        training = None if parting is None else asdict(parting)
        click.echo(json_text.dump({"device": compute.device.name, "operations": operations, "training": training}))
    else:
        if parting is not None and parting.step is None:
            click.echo(f"DeepConvNet, {steps} steps on both: losses within {parting.difference:.1e}")
        elif parting is not None:
            click.echo(f"DeepConvNet: WRONG, the two part at step {parting.step}, layer {parting.layer}")
        click.echo("every operation agrees" if passed else "NOT every operation agrees")
    context.exit(0 if passed else 1)
