"""``xpnet profile``: the time of a training step, by Nsight on a GPU and by our own ranges anywhere."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from backend import inspect_cuda, memory, use
from training.cli.common import (
    Compute,
    UserError,
    allow_import_option,
    choose_compute,
    count_from,
    device_option,
    threads_option,
    user_errors,
)
from training.cli.inputs import find_model, load_data
from training.cli.train import settings_options
from training.files import json_text
from training.files.durable import write_atomically
from training.files.printable import printable
from training.loop.non_finite import NonFiniteError
from training.loop.recipe import build_trainer
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings
from training.loop.trainer import Trainer
from training.models.loading import load_network
from training.profile import nsight
from training.profile.cost import Work, cost_of_step
from training.profile.report import table
from training.profile.roof import record, roof_of_cpu, roof_of_gpu, summed
from training.profile.samples import trainer_of
from training.profile.steps import LOADER, LOOP, OPTIMIZER, profile
from training.profile.trace import write_trace

TOOLS = ("nsys", "ncu")


class Prepared(NamedTuple):
    """A trainer that can be profiled, and what it is trained on, in words."""

    trainer: Trainer
    data: str


class Tool(click.Choice):
    """The type of --tool; for the name of a tool that NVIDIA has replaced, the error says what to take instead."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in nsight.REPLACED:
            self.fail(f"{value} {nsight.SUCCESSORS}", param, ctx)
        return super().convert(value, param, ctx)


def _take_settings(context: click.Context, parameter: click.Parameter, run: Path | None) -> RunFolder | None:
    """Make the settings of a run the defaults of the other options."""
    if run is None:
        return None
    with user_errors():
        if not run.is_dir():
            raise FileNotFoundError(f"there is no folder {run}")
        folder = RunFolder(run)
        settings = folder.load_config().get("settings")
        if not isinstance(settings, dict):
            raise ValueError(f"{run / 'config.json'} has no settings")
    context.default_map = {name: value for name, value in settings.items() if value not in (None, [])}
    return folder


@click.command("profile")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@allow_import_option
@settings_options
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    is_eager=True,
    callback=_take_settings,
    help="Folder of a run: profile its training (its settings are the defaults of the other options), and keep the "
    "result there for xpnet report.",
)
@device_option
@threads_option
@click.option("--steps", type=count_from(1), default=10, help="Training steps that are profiled.")
@click.option("--warmup", type=count_from(0), default=5, help="Steps before them.")
@click.option(
    "--tool",
    type=Tool(["auto", *TOOLS, "none"]),
    default="auto",
    help="Nsight Systems (times) or Nsight Compute (bytes, too), for a GPU; auto takes the one that is installed. "
    "none, and on a CPU auto: this process records its own calls.",
)
@click.option("--kernels", metavar="REGEX", help="With a tool: only kernels whose names contain this.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    default="runs/profile",
    help="Folder for the tool's report; an earlier one is replaced.",
)
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write every call as a trace, for https://ui.perfetto.dev.",
)
@click.pass_context
def command(
    context: click.Context,
    file: Path | None,
    allow_import: bool,
    data_dir: Path | None,
    device: str,
    threads: int | None,
    run: RunFolder | None,
    steps: int,
    warmup: int,
    tool: str,
    kernels: str | None,
    report: Path,
    trace_file: Path | None,
    **options: Any,
) -> None:
    """Profile training steps, by layer and phase; the trained model is not kept.

    FILE is a .safetensors file that says which model it is, or the folder of a run: its training is profiled on random
    samples. Without it, --model is trained on --data.

    On the CPU, the table has the time in each layer's calls: calls are those of operations (convolution, max pooling,
    …), MB the arrays that they were given and returned, each counted once an operation, and GB/s these over the layer's
    time. A Relu that is fused with the layer before it has no line for its forward. The last columns are from the cost
    model of xpnet summary: the least MB that must move, where an update in place counts twice, and floating-point
    operations, MFLOP; GFLOP/s are these over the layer's time.

    On a GPU, this command runs itself under nsys or ncu and prints the kernels; the tool's report stays in the folder.
    With --tool none the times are those of the host's calls, which do not wait for kernels; the steps run between
    cudaProfilerStart and cudaProfilerStop, for a tool that you run yourself, as in
    nsys profile --capture-range=cudaProfilerApi --trace=cuda,nvtx,cublas xpnet profile --tool none.
    """
    settings = Settings.chosen(**options, val=0.0)
    if file is not None:
        _check_alone(context, file)

    def prepare(settings: Settings) -> Prepared:
        if file is not None:
            with user_errors():
                return Prepared(trainer_of(load_network(find_model(file), allow_import), settings), "random samples")
        data = load_data(settings, data_dir, show_progress=sys.stderr.isatty())
        with user_errors():
            return Prepared(build_trainer(settings, data), data.name)

    with user_errors():
        if trace_file is not None and not trace_file.absolute().parent.is_dir():
            raise ValueError(f"{trace_file}: there is no folder {trace_file.absolute().parent}")
        compute = choose_compute(device, threads)
    _check_kernels(kernels)
    if compute.device.kind == "cuda" and tool != "none":
        wanted = None if tool == "auto" else tool
        _profile_with_tool(context, compute, wanted, report, kernels, steps, settings, prepare, run)
        if trace_file is not None:
            click.echo(f"trace {printable(trace_file)}, of the host's calls: open it in https://ui.perfetto.dev")
        return
    if tool in TOOLS:
        raise UserError(
            f"{tool} profiles a GPU, and this would run on {compute}; leave out --tool for a profile of the CPU"
        )
    if kernels is not None:
        raise UserError(f"--kernels {kernels} is for nsys and ncu; without them the table has layers, not kernels")
    trainer, data_name = prepare(settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's of an overflow: the trainer says what comes of it
            found = profile(trainer, steps, warmup)
    except NonFiniteError as error:
        raise click.ClickException(str(error)) from error
    except memory.OutOfMemoryError as error:
        raise UserError(f"{error}; give a smaller --model or --batch-size") from error
    images, taken = steps * trainer.train_loader.largest_batch / found.seconds, found.durations()
    click.echo(
        f"{type(trainer.network).__name__}, {data_name}, "
        f"batch {trainer.train_loader.largest_batch}, {settings.precision}, "
        f"{compute.device}, {compute.threads} thread(s): {steps} steps after {warmup}, "
        f"{1e3 * found.seconds / steps:.3f} ms a step ({1e-6 * min(taken):.3f} to {1e-6 * max(taken):.3f}), "
        f"{images:,.0f} images/s"
    )
    on_gpu = compute.device.kind == "cuda"
    if on_gpu:
        click.echo("times are those of the host's calls, which do not wait for kernels")
    if compute.no_gpu:
        click.echo(f"no GPU: {compute.no_gpu}")
    cost = cost_of_step(trainer.network, trainer.train_loader.largest_batch, trainer.optimizer)
    for line in table(found, cost.works, with_rates=not on_gpu):
        click.echo(line)
    if run is not None:
        seconds = {(row.layer, row.phase): 1e-9 * row.nanoseconds / steps for row in found.rows()}
        roof = None if on_gpu else roof_of_cpu(compute.threads)
        works = {} if on_gpu else cost.works  # operations over the time of the host's calls mean nothing
        _keep(run, record(seconds, works, roof, _about(trainer, compute, settings, steps)))
    if trace_file is not None:
        with user_errors():
            write_trace(found.events, trace_file)
        click.echo(f"trace {printable(trace_file)}: open it in https://ui.perfetto.dev")


def _check_alone(context: click.Context, file: Path) -> None:
    """Raise a UserError if there are options of the model or the data beside a file."""
    for name in ("model", "dataset", "data", "run"):
        if context.params.get(name) is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UserError(f"{printable(file)} is profiled on random samples: leave --{name} out")


def _check_kernels(kernels: str | None) -> None:
    try:
        re.compile(kernels or "")
    except re.error as error:
        raise UserError(f"--kernels {kernels} is not a regular expression: {error}") from None


def _profile_with_tool(
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
        _keep(run, record(seconds, named, roof, _about(trainer, compute, settings, steps)))
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


def _about(trainer: Trainer, compute: Compute, settings: Settings, steps: int) -> dict[str, Any]:
    return {
        "model": type(trainer.network).__name__,
        "batch": trainer.train_loader.largest_batch,
        "precision": settings.precision,
        "device": str(compute.device),
        "threads": compute.threads,
        "steps": steps,
    }


def _keep(run: RunFolder, found: dict[str, Any]) -> None:
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
