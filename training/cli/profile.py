"""``xpnet profile``: the time of a training step, by Nsight on a GPU and by our own ranges anywhere."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from backend import memory
from training.cli.common import (
    UserError,
    allow_import_option,
    choose_compute,
    count_from,
    device_option,
    threads_option,
    user_errors,
)
from training.cli.inputs import find_model, load_data, load_model
from training.cli.profile_with_tool import Prepared, about, keep, profile_with_tool
from training.cli.train import settings_options
from training.files.printable import printable
from training.loop.non_finite import NonFiniteError
from training.loop.recipe import build_trainer
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings
from training.profile import nsight
from training.profile.cost import cost_of_step
from training.profile.report import meanwhile, table_of
from training.profile.roof import record, roof_of_cpu
from training.profile.samples import trainer_of
from training.profile.steps import profile
from training.profile.trace import write_trace
from training.terminal.tables import show

TOOLS = ("nsys", "ncu")


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

    FILE is a .safetensors file that says which model it is, an .onnx file, or the folder of a run: its training is
    profiled on random samples. Without it, --model is trained on --data.

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
                return Prepared(trainer_of(load_model(find_model(file), allow_import), settings), "random samples")
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
        profile_with_tool(context, compute, wanted, report, kernels, steps, settings, prepare, run)
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
        f"{trainer.network.title}, {data_name}, "
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
    show(table_of(found, cost.works, with_rates=not on_gpu))
    for line in meanwhile(found):
        click.echo(line)
    if run is not None:
        seconds = {(row.layer, row.phase): 1e-9 * row.nanoseconds / steps for row in found.rows()}
        roof = None if on_gpu else roof_of_cpu(compute.threads)
        works = {} if on_gpu else cost.works  # operations over the time of the host's calls mean nothing
        keep(run, record(seconds, works, roof, about(trainer, compute, settings, steps)))
    if trace_file is not None:
        with user_errors():
            write_trace(found.events, trace_file)
        click.echo(f"trace {printable(trace_file)}: open it in https://ui.perfetto.dev")


def _check_alone(context: click.Context, file: Path) -> None:
    """Raise a UserError if there are options of the model or the data next to a file."""
    for name in ("model", "dataset", "data", "run"):
        if context.params.get(name) is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UserError(f"{printable(file)} is profiled on random samples: leave --{name} out")


def _check_kernels(kernels: str | None) -> None:
    try:
        re.compile(kernels or "")
    except re.error as error:
        raise UserError(f"--kernels {kernels} is not a regular expression: {error}") from None
