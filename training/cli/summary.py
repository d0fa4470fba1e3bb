"""``xpnet summary``: the layers of a model, and the cost of a training step."""

from __future__ import annotations

import pathlib
from dataclasses import asdict
from typing import Any, NamedTuple

import click

from backend import allow_tf32
from kernels.implicit_gemm import active_capability
from layers.initializers import unfilled
from training.cli import summary_ranks
from training.cli.common import (
    Choice,
    Compute,
    UserError,
    allow_import_option,
    choose_compute,
    count_from,
    device_option,
    json_option,
    threads_option,
    user_errors,
)
from training.cli.data_options import DATASET
from training.cli.inputs import ANY_MODEL, find_model, load_model
from training.cli.train import PRECISION
from training.data.sources import INPUT_DIM, SOURCES
from training.files import json_text
from training.files.printable import printable
from training.loop.settings import DEFAULT_MODEL, DEFAULTS
from training.models import Network, build_for
from training.models.indices import check_examples
from training.models.layer_file import SUFFIX, read_layer_file
from training.optim import LossScaler, optimizers
from training.optim.optimizer import Optimizer
from training.profile.cost import GPUS, Gpu, StepCost, Work, cost_of_step
from training.profile.launches import NoCounterError
from training.profile.meter import Readings, example_batch, launches_of_a_step, seconds_of_a_step
from training.profile.paths import Path, paths_of
from training.terminal.tables import show, table
from training.zoo import NETWORKS, PLACE_NETWORKS, usual_size

_PHASES = ("forward", "backward")


class Measured(NamedTuple):
    """A step on a device, by layer and phase; ``launches`` are None on a CPU, or where ``uncounted`` says why."""

    seconds: dict[tuple[str, str], float]
    launches: Readings | None
    uncounted: str


@click.command("summary")
@click.argument("run", required=False, type=click.Path(path_type=pathlib.Path))
@click.option(
    "--model",
    type=ANY_MODEL,
    metavar="NAME",
    help=f"One of {', '.join(ANY_MODEL.choices)}.  [default: {DEFAULT_MODEL}]",
)
@click.option("--dataset", type=DATASET, help=f"The data set whose images it takes.  [default: {DEFAULTS.dataset}]")
@allow_import_option
@click.option("--batch-size", type=count_from(1), default=100, help="Images in a step.")
@click.option("--precision", type=PRECISION, default=DEFAULTS.precision, help="As for training.")
@click.option(
    "--gpu",
    type=Choice(list(GPUS), case_sensitive=False),
    metavar="NAME",
    help=f"Add the least time on this GPU, by its published peak rates: {', '.join(GPUS)}.",
)
@click.option("--measure", is_flag=True, help="Add the time measured on --device, and on a GPU the launches.")
@summary_ranks.options
@device_option
@threads_option
@json_option
def command(
    run: pathlib.Path | None,
    model: str | None,
    dataset: str | None,
    allow_import: bool,
    batch_size: int,
    precision: str,
    gpu: str | None,
    measure: bool,
    ranks: int | None,
    link: str | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """List a model's layers and the cost of a training step, without a GPU: operations, least bytes and memory.

    RUN is the folder of a run, a .safetensors or an .onnx file. Without it, the model is named by --model and
    --dataset, as a new one of that name would be: by default xpnet's own, not that of a run.

    MB are the least that must move: every input read once, every result written once. Memory is that of a GPU. MFLOP
    are multiplications, additions and other operations, in millions; MB are 10^6 bytes. The optimizer's update stands
    under forward. Of convolutions it says how they are computed on the --gpu, or else on the device that is measured.
    With --ranks and --link it adds the all-reduce of a data-parallel step, in which each device has such a batch.
    """
    several = summary_ranks.asked(ranks, link, gpu or (None if measure else summary_ranks.DEFAULT_GPU))
    compute = choose_compute(device if measure else "cpu", threads)
    if run is not None and (model or dataset):
        raise UserError(f"{printable(run)} says which model it is: leave --model and --dataset out")
    with user_errors():
        if run is None:
            network = _new(model or DEFAULT_MODEL, dataset)
        else:
            network = load_model(find_model(run), allow_import)
    model = network.title
    network.astype("float16" if precision == "fp16" else "float32")
    optimizer = optimizers.by_name(DEFAULTS.optimizer, DEFAULTS.lr, DEFAULTS.weight_decay)
    cost = cost_of_step(network, batch_size, optimizer)
    rates = None if gpu is None else GPUS[gpu]
    measured = _measured(network, optimizer, batch_size, precision, compute) if measure else None
    place, capability = str(compute.device), active_capability()
    if rates is not None:
        place, capability = rates.title, rates.capability
    paths = paths_of(network, capability, precision)
    on_ranks = None if several is None else _on_ranks(several, cost, rates, measured, compute, precision)
    if as_json:
        record = _record(model, precision, cost, rates, measured, str(compute.device))
        record["convolutions"] = {"device": place, "paths": [path._asdict() for path in paths]}
        if on_ranks is not None:
            record["ranks"] = summary_ranks.record(on_ranks)
        click.echo(json_text.dump(record))
        return
    kind = "indices" if network.takes_indices else "images" if len(network.input_dim) == 3 else "rows"
    inputs = f"{'x'.join(map(str, network.input_dim))} {kind}"
    whose = "new, of no run" if run is None else printable(run)
    click.echo(f"{model} ({whose}) on {inputs}, batch {batch_size}, {precision}, {type(optimizer).__name__}")
    show(table(_rows(cost, rates, precision, measured), words=3))
    for line in _totals(cost, rates, precision, _said(paths, place)):
        click.echo(line)
    if measured is not None:
        total = 1e3 * sum(measured.seconds.values())
        launches = "" if measured.launches is None else f", {sum(measured.launches.values())} launches"
        click.echo(f"measured    {total:,.2f} ms a step on {compute.device}, {compute.threads} thread(s){launches}")
        if measured.uncounted:
            click.echo(f"launches are not counted: {measured.uncounted}")
    for line in [] if on_ranks is None else summary_ranks.lines(on_ranks):
        click.echo(line)


def _new(model: str, dataset: str | None) -> Network:
    """Return a model for the images of a data set; without one, of the zoo or a file, in its usual size."""
    shape: tuple[int, ...] = INPUT_DIM
    classes = len(SOURCES[dataset or DEFAULTS.dataset].classes)
    if dataset is None and model in (*NETWORKS, *PLACE_NETWORKS):
        shape, classes = usual_size(model)
    elif dataset is None and model.endswith(SUFFIX):
        described = read_layer_file(pathlib.Path(model))
        shape, classes = described.input_dim or shape, described.classes or classes
    with unfilled():
        return build_for(model, shape, classes)


def _measured(network: Network, optimizer: Optimizer, batch_size: int, precision: str, compute: Compute) -> Measured:
    with user_errors():
        check_examples(network)
        allow_tf32(precision == "tf32")
    scaler = LossScaler() if precision == "fp16" else None
    try:
        x, t = example_batch(network, batch_size)
        seconds = seconds_of_a_step(network, optimizer, x, t, steps=10, scaler=scaler)
        if compute.device.kind == "cpu":
            return Measured(seconds, None, "")
        return Measured(seconds, launches_of_a_step(network, optimizer, x, t, scaler), "")
    except NoCounterError as error:
        return Measured(seconds, None, str(error))
    except MemoryError as error:
        raise UserError(f"{error}; give a smaller --batch-size") from error


def _on_ranks(
    several: summary_ranks.Ranks,
    cost: StepCost,
    gpu: Gpu | None,
    measured: Measured | None,
    compute: Compute,
    precision: str,
) -> summary_ranks.RanksCost:
    """Return the cost on several devices, each of which is the GPU, or else what was measured."""
    if gpu is None and measured is not None:
        return summary_ranks.cost_on(several, cost, measured.seconds, f"measured on {compute.device}")
    gpu = gpu or GPUS[summary_ranks.DEFAULT_GPU]
    seconds = {key: gpu.seconds(work, precision) for key, work in cost.works.items()}
    return summary_ranks.cost_on(several, cost, seconds, f"{gpu.title}, at its peak rates")


def _rows(cost: StepCost, gpu: Gpu | None, precision: str, measured: Measured | None) -> list[list[str]]:
    """Return the heads of the table, the first of each phase with its name above, and a row for each layer."""
    launches = None if measured is None else measured.launches
    times = ["µs least"] * (gpu is not None) + ["ms seen"] * (measured is not None)
    heads = ["layer", "type", "output", "parameters", "kept MB"]
    phase_heads = ["MB", *times, *["launches"] * (launches is not None)]
    lines = [[*heads, *(head for phase in _PHASES for head in (f"{phase}\nMFLOP", *phase_heads))]]
    for row in cost.rows:
        parameters = f"{row.parameters:,}" if row.parameters else ""
        kept = _mega(row.kept) if row.kept else "" if row.is_known else "?"
        line = [row.name, row.kind, " x ".join(map(str, row.shape)), parameters, kept]
        for phase in ("update", "") if "update" in row.work else _PHASES:
            work = row.work.get(phase)
            cells = ["" if row.is_known else "?"] * 2
            cells += [""] * (gpu is not None)
            if work is not None:
                cells = [_mega(work.flops), _mega(work.nbytes)]
                cells += [] if gpu is None else [f"{1e6 * gpu.seconds(work, precision):.2f}"]
            if measured is not None:
                seen = measured.seconds.get((row.name, phase))
                cells.append("" if seen is None else f"{1e3 * seen:.3f}")
            if launches is not None:
                cells.append(f"{launches.get((row.name, phase), '')}")
            line += cells
        lines.append(line)
    return lines


def _totals(cost: StepCost, gpu: Gpu | None, precision: str, ways: list[str]) -> list[str]:
    """Return the lines below the table."""
    total = cost.total
    memory = ", ".join(f"{name} {_mega(nbytes)}" for name, nbytes in cost.memory.items())
    lines = [
        f"parameters  {cost.parameters:,}",
        f"step        {_mega(total.flops)} MFLOP, {_mega(total.nbytes)} MB at least",
        f"memory      {_mega(sum(cost.memory.values()))} MB at least: {memory}",
    ]
    if gpu is not None:
        lines.append(f"{gpu.title}: {1e6 * _least_seconds(cost, gpu, precision):,.1f} µs at its peak rates")
    lines += ways
    if cost.unknown:
        lines.append(
            f"not known, and in no total: {', '.join(cost.unknown)} (training.profile.cost.formula declares a cost)"
        )
    return lines


def _said(paths: list[Path], place: str) -> list[str]:
    """Return a line for each way in which convolutions are computed."""
    layers: dict[str, list[str]] = {}
    for path in paths:
        layers.setdefault(f"{path.name} ({path.reason})", []).append(path.layer)
    return [f"on {place}, {', '.join(names)}: {way}" for way, names in layers.items()]


def _least_seconds(cost: StepCost, gpu: Gpu, precision: str) -> float:
    """Return the seconds of a step at the GPU's peak rates, one layer and phase after the other."""
    return sum(gpu.seconds(work, precision) for work in cost.works.values())


def _record(
    model: str, precision: str, cost: StepCost, gpu: Gpu | None, measured: Measured | None, device: str
) -> dict[str, Any]:
    def of_work(name: str, phase: str, work: Work) -> dict[str, Any]:
        figures = {**asdict(work), "bytes": work.nbytes, "flops": work.flops}
        del figures["nbytes"]
        if gpu is not None:
            figures["least_seconds"] = gpu.seconds(work, precision)
        if measured is not None:
            figures["measured_seconds"] = measured.seconds.get((name, phase))
            figures["launches"] = measured.launches and measured.launches.get((name, phase))
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
        record["gpu"] = {"name": gpu.title, "least_seconds": _least_seconds(cost, gpu, precision)}
    if measured is not None:
        launches = None if measured.launches is None else sum(measured.launches.values())
        record["measured"] = {"device": device, "seconds": sum(measured.seconds.values()), "launches": launches}
    return record


def _mega(number: float) -> str:
    """Return a number in millions, with three significant digits or more."""
    millions = number / 1e6
    return f"{millions:,.3f}" if millions < 1 else f"{millions:,.2f}" if millions < 100 else f"{millions:,.0f}"
