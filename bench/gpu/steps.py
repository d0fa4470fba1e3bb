"""Time training steps on a GPU, eager and by CUDA graph: ``python -m bench steps``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy

from backend import DeviceError, allow_tf32, random, synchronize
from bench.gpu.graph_steps import refusal
from bench.host import MODELS, models_option
from bench.kernels.measure import describe_gpu
from bench.report import check_folder, write_json
from training.cli.common import choose_compute, count_from, user_errors
from training.data import Loader
from training.loop.trainer import Trainer
from training.optim import LossScaler, Update
from training.terminal.tables import aligned

PRECISIONS = ("fp32", "tf32", "fp16")

_ROUNDS = 3  # epochs that are timed, after one that compiles and captures

Row = dict[str, Any]


def measure(model: str, precision: str, batch: int, count: int) -> Row:
    """Train ``model`` eagerly and by graph on the same random data; time epochs of ``count`` steps, loader included.

    Returns:
        Microseconds of a step of the fastest epoch, both ways; ``same_bits`` of the parameters; and why steps were not
        run as graphs, if they were not.

    Raises:
        DeviceError: the GPU has no TF32.
    """
    allow_tf32(precision == "tf32")
    row: Row = {"model": model, "precision": precision, "batch": batch, "refusal": ""}
    parameters = []
    for way in ("eager", "graph"):
        random.seed(0)
        network, optimizer = MODELS[model]()
        dtype, scaler = ("float16", LossScaler()) if precision == "fp16" else ("float32", None)
        numbers = numpy.random.default_rng(0)
        images = numbers.integers(0, 256, (batch * count, *network.input_dim), dtype="uint8")
        labels = numbers.integers(0, network.classes, batch * count)
        loader = Loader(images, labels, batch, dtype=dtype)
        update = Update(optimizer, scaler=scaler)
        trainer = Trainer(network.astype(dtype), loader, loader, update, graph=way == "graph")
        row[f"{way}_us"] = min(_epoch(trainer, epoch) for epoch in range(1, _ROUNDS + 2)) / count
        parameters.append(trainer.network.params.flat)
        if way == "graph":
            row["refusal"] = refusal(trainer)
    row["same_bits"] = bool((parameters[0] == parameters[1]).all())
    return row


def _epoch(trainer: Trainer, epoch: int) -> float:
    """Return the microseconds of an epoch's steps, from an idle device until it is done."""
    synchronize()
    begin = time.perf_counter()
    for _ in trainer.steps(epoch):
        pass
    synchronize()
    return 1e6 * (time.perf_counter() - begin)


def as_table(rows: list[Row]) -> str:
    """Return the rows as lines for a terminal."""
    lines = [["model", "precision", "eager us", "by graph us", "ratio", ""]]
    for row in rows:
        eager, graph = row["eager_us"], row["graph_us"]
        said = row["refusal"] or ("same bits" if row["same_bits"] else "OTHER BITS")
        lines.append([row["model"], row["precision"], f"{eager:,.0f}", f"{graph:,.0f}", f"{eager / graph:.2f}", said])
    return "\n".join(aligned(lines, words=2))


@click.command("steps")
@models_option
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(PRECISIONS),
    default=PRECISIONS,
    help="May be repeated.  [default: all]",
)
@click.option("--batch", type=count_from(1), default=128, show_default=True, help="Samples of a step.")
@click.option("--count", type=count_from(4), default=20, show_default=True, help="Steps of an epoch that is timed.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
def steps(models: tuple[str, ...], precisions: tuple[str, ...], batch: int, count: int, json_file: Path | None) -> None:
    """Time training steps on a GPU, eager and by CUDA graph.

    Steps are a Trainer's, with its loader and its bookkeeping, on random images. Exit code 1 if the parameters of both
    ways differ in a bit, or steps cannot be captured.
    """
    with user_errors():
        check_folder(json_file)
    choose_compute("cuda", None)
    rows = []
    try:
        for model in models:
            for precision in precisions:
                click.echo(f"{model}, {precision}", err=True)
                try:
                    rows.append(measure(model, precision, batch, count))
                except DeviceError as error:
                    click.echo(f"{error}", err=True)
    finally:
        allow_tf32(False)
    click.echo(as_table(rows))
    if json_file:
        write_json({"schema": 1, "gpu": describe_gpu(), "rows": rows}, json_file)
    wrong = [f"{row['model']} in {row['precision']}" for row in rows if row["refusal"] or not row["same_bits"]]
    if wrong:
        raise click.ClickException(f"graphs and eager steps differ: {', '.join(wrong)}")
