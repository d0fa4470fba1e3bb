"""``xpnet summary``: what a model is made of, and what a training step of it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from training.cli.common import (
    Name,
    UserError,
    choose_compute,
    count_from,
    dataset_names,
    device_option,
    json_option,
    model_names,
    threads_option,
    user_errors,
)
from training.cli.train import precision_names
from training.files import json_text
from training.loop.settings import DEFAULTS
from training.profile.tables import aligned, column_widths

if TYPE_CHECKING:
    from training.models import Network
    from training.optim.optimizer import Optimizer
    from training.profile.cost import Gpu, StepCost, Work
    from training.profile.layer_phases import Readings

_PHASES = ("forward", "backward")


def _gpu_names() -> Sequence[str]:
    from training.profile.cost import GPUS

    return list(GPUS)


@click.command("summary")
@click.option("--model", type=Name(model_names), default=DEFAULTS.model, help="Upper or lower case.")
@click.option("--dataset", type=Name(dataset_names), default=DEFAULTS.dataset, help="Whose images it is to take.")
@click.option("--batch-size", type=count_from(1), default=100, help="Images in a step.")
@click.option("--precision", type=Name(precision_names), default=DEFAULTS.precision, help="As for training.")
@click.option("--gpu", type=Name(_gpu_names), help="Add the least time on this GPU, by its published peak rates.")
@click.option("--measure", is_flag=True, help="Add the time measured on --device, over a few steps.")
@device_option
@threads_option
@json_option
def command(
    model: str,
    dataset: str,
    batch_size: int,
    precision: str,
    gpu: str | None,
    measure: bool,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """List a model's layers and what a training step takes, without a GPU: operations, least bytes, kernel launches.

    MB are the least that must move: every input read once, every result written once. Launches and memory are those of
    a GPU. MFLOP are multiplications, additions and other operations, in millions; MB are 10^6 bytes.
    """
    from training.data.sources import INPUT_DIM, SOURCES
    from training.models import build_for
    from training.optim import optimizers
    from training.profile.cost import GPUS, cost_of_step

    compute = choose_compute(device if measure else "cpu", threads)
    with user_errors():
        network = build_for(model, INPUT_DIM, len(SOURCES[dataset].classes))
    network.astype("float16" if precision == "fp16" else "float32")
    optimizer = optimizers.by_name(DEFAULTS.optimizer, DEFAULTS.lr, DEFAULTS.weight_decay)
    cost = cost_of_step(network, batch_size, optimizer)
    rates = None if gpu is None else GPUS[gpu]
    seconds = _measured(network, optimizer, batch_size, precision) if measure else None
    if as_json:
        click.echo(json_text.dump(_record(model, precision, cost, rates, seconds, str(compute.device))))
        return
    size = "x".join(map(str, INPUT_DIM))
    click.echo(f"{model} on {size} images, batch {batch_size}, {precision}, {type(optimizer).__name__}")
    for line in [*_table(cost, rates, precision, seconds), *_totals(cost, rates, precision)]:
        click.echo(line)
    if seconds is not None:
        total = sum(seconds.values())
        click.echo(f"measured    {1e3 * total:,.2f} ms a step on {compute.device}, {compute.threads} thread(s)")


def _measured(network: Network, optimizer: Optimizer, batch_size: int, precision: str) -> Readings:
    from backend import allow_tf32
    from training.optim.loss_scaling import LossScaler
    from training.profile.layer_phases import example_batch, seconds_of_a_step

    with user_errors():
        allow_tf32(precision == "tf32")
    scaler = LossScaler() if precision == "fp16" else None
    try:
        return seconds_of_a_step(network, optimizer, *example_batch(network, batch_size), steps=10, scaler=scaler)
    except MemoryError as error:
        raise UserError(f"{error}; give a smaller --batch-size") from error


def _table(cost: StepCost, gpu: Gpu | None, precision: str, seconds: Readings | None) -> list[str]:
    """The layers, one a line, and two lines of heads."""
    times = ["µs least"] * (gpu is not None) + ["ms seen"] * (seconds is not None)
    heads = ["layer", "type", "output", "parameters", "kept MB"]
    phase_heads = ["MFLOP", "MB", "launches", *times]
    lines = [[*heads, *phase_heads * 2]]
    for row in cost.rows:
        parameters = f"{row.parameters:,}" if row.parameters else ""
        kept = _mega(row.kept) if row.kept else "" if row.is_known else "?"
        line = [row.name, row.kind, " x ".join(map(str, row.shape)), parameters, kept]
        for phase in ("update", "") if "update" in row.work else _PHASES:
            work = row.work.get(phase)
            cells = [""] * 3 if row.is_known else ["?"] * 3
            cells += [""] * (gpu is not None)
            if work is not None:
                cells = [_mega(work.flops), _mega(work.nbytes), f"{work.launches}"]
                cells += [] if gpu is None else [f"{1e6 * gpu.seconds(work, precision):.2f}"]
            if seconds is not None:
                seen = seconds.get((row.name, phase))
                cells.append("" if seen is None else f"{1e3 * seen:.3f}")
            line += cells
        lines.append(line)
    widths = column_widths(lines)
    printed = [line.rstrip() for line in aligned(lines, words=3)]
    left = sum(widths[: len(heads)]) + 2 * len(heads)
    width = sum(widths[len(heads) : len(heads) + len(phase_heads)]) + 2 * len(phase_heads)
    return [f"{'':<{left}}{'forward, or update':<{width}}{'backward'}".rstrip(), *printed]


def _totals(cost: StepCost, gpu: Gpu | None, precision: str) -> list[str]:
    """What is said below the table."""
    total = cost.total
    memory = ", ".join(f"{name} {_mega(nbytes)}" for name, nbytes in cost.memory.items())
    lines = [
        f"parameters  {cost.parameters:,}",
        f"step        {_mega(total.flops)} MFLOP, {_mega(total.nbytes)} MB at least, {total.launches} launches",
        f"memory      {_mega(sum(cost.memory.values()))} MB at least: {memory}",
    ]
    if gpu is not None:
        least, launching = (1e6 * time for time in _times(cost, gpu, precision))
        lines.append(
            f"{gpu.title}: {least:,.1f} µs at its peak rates; {total.launches} launches take the host "
            f"{launching:,.0f} µs, at an assumed {launching / max(total.launches, 1):.0f} µs each"
        )
    if cost.unknown:
        lines.append(
            f"not known, and in no total: {', '.join(cost.unknown)} (training.profile.cost.formula declares a cost)"
        )
    return lines


def _times(cost: StepCost, gpu: Gpu, precision: str) -> tuple[float, float]:
    """Seconds of a step at the GPU's peak rates, each layer and phase for itself, and of its launches."""
    from training.profile.cost import LAUNCH_SECONDS

    least = sum(gpu.seconds(work, precision) for row in cost.rows for work in row.work.values())
    return least, LAUNCH_SECONDS * cost.total.launches


def _record(
    model: str, precision: str, cost: StepCost, gpu: Gpu | None, seconds: Readings | None, device: str
) -> dict[str, Any]:
    def of_work(name: str, phase: str, work: Work) -> dict[str, Any]:
        figures = {**work._asdict(), "bytes": work.nbytes, "flops": work.flops}
        del figures["nbytes"]
        if gpu is not None:
            figures["least_seconds"] = gpu.seconds(work, precision)
        if seconds is not None:
            figures["measured_seconds"] = seconds.get((name, phase))
        return figures

    rows = [
        {
            "layer": row.name,
            "type": row.kind,
            "output": row.shape,
            "parameters": row.parameters,
            "kept_bytes": row.kept if row.is_known else None,
            **{phase: of_work(row.name, phase, work) for phase, work in row.work.items()},
        }
        for row in cost.rows
    ]
    record: dict[str, Any] = {
        "model": model,
        "batch_size": cost.samples,
        "precision": precision,
        "layers": rows,
        "parameters": cost.parameters,
        "memory_bytes": cost.memory,
        "not_known": cost.unknown,
    }
    if gpu is not None:
        least, launching = _times(cost, gpu, precision)
        record["gpu"] = {"name": gpu.title, "least_seconds": least, "launch_seconds": launching}
    if seconds is not None:
        record["measured"] = {"device": device, "seconds": sum(seconds.values())}
    return record


def _mega(number: float) -> str:
    """Millions, with as many digits as tell something."""
    millions = number / 1e6
    return f"{millions:,.3f}" if millions < 1 else f"{millions:,.2f}" if millions < 100 else f"{millions:,.0f}"
