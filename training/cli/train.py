"""``xpnet train``: train a model and keep everything about the run in a folder."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from training.cli.common import (
    Choice,
    Interval,
    Real,
    UserError,
    choose_compute,
    count_from,
    device_option,
    in_words,
    threads_option,
    user_errors,
)
from training.cli.config import FILE, Configured, dump
from training.cli.console import Console
from training.cli.data_options import DATA_OPTIONS, part_options
from training.cli.find_rate import find_rate
from training.cli.inputs import MODEL, load_data
from training.cli.loss_options import LOSS_OPTIONS
from training.cli.ranks import agree, end, follow, in_turn, joined, own_device
from training.cli.resume import ResumedRun, resumable
from training.cli.run import LOGS, draw, how_to_go_on, kept, make_logs, predicted, results, started, train
from training.cli.streams import going_on_silently
from training.data import Data
from training.distributed.exchange import COMPRESSIONS
from training.files.durable import write_atomically
from training.loop.checkpoints import Checkpoints
from training.loop.provenance import describe
from training.loop.recipe import build_trainer, describe_input, evaluated_part
from training.loop.recorder import Recorder
from training.loop.run_folder import RunFolder
from training.loop.settings import DEFAULTS, Settings
from training.loop.stopping import deferred
from training.loop.trainer import Trainer
from training.optim import loss_scaling, optimizers, schedules

INTERVAL = Interval()
PRECISION = Choice(loss_scaling.NAMES, case_sensitive=False)

_SETTINGS = (
    *DATA_OPTIONS,
    click.option(
        "--model",
        type=MODEL,
        metavar="NAME",
        help=f"One of {', '.join(MODEL.choices)}, in any case; or a TOML file of layers.  "
        "[default: ConvNet for images, MultiLayerNet for tables]",
    ),
    *LOSS_OPTIONS,
    click.option("--batch-size", type=count_from(1), default=DEFAULTS.batch_size, help="Images in a step."),
    click.option(
        "--accumulate",
        type=count_from(1),
        default=DEFAULTS.accumulate,
        help="Make each step of this many batches, whose gradients are added up.",
    ),
    click.option(
        "--optimizer",
        type=Choice(optimizers.NAMES, case_sensitive=False),
        metavar="NAME",
        default=DEFAULTS.optimizer,
        help=f"One of {', '.join(optimizers.NAMES)}.",
    ),
    click.option(
        "--lr",
        type=Real(0, min_open=True),
        help=f"Learning rate, the highest of the schedule.  [default: {DEFAULTS.lr} with {DEFAULTS.optimizer}, else "
        "the optimizer's own]",
    ),
    click.option(
        "--schedule",
        type=Choice(schedules.NAMES, case_sensitive=False),
        metavar="NAME",
        default=DEFAULTS.schedule,
        help=f"How the learning rate changes over the training: {', '.join(schedules.NAMES)}; "
        "warmup- puts a linear rise before it.",
    ),
    click.option(
        "--weight-decay",
        type=Real(0),
        help=f"[default: {DEFAULTS.weight_decay} with {DEFAULTS.optimizer}, else the optimizer's own]",
    ),
    click.option("--clip-norm", type=Real(0, min_open=True), help="Scale gradients down to at most this norm."),
    click.option(
        "--precision",
        type=PRECISION,
        default=DEFAULTS.precision,
        help="fp16: float16 with float32 master parameters and a loss scale; tf32: matrix products on tensor cores.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**64 - 1),
        default=DEFAULTS.seed,
        help="Seed of initial weights, shuffling and dropout: the same seed gives the same numbers, bit for bit.",
    ),
)


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that define a training step to a command: data, model, optimizer, precision, seed."""
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@click.command("train", cls=Configured)
@resumable
@settings_options
@part_options
@click.option(
    "--init",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Begin with the parameters of this run's model, or of a .safetensors or .npz file, where their shapes are the "
    "same.",
)
@click.option("--freeze", metavar="NAMES", help="Layers that learn nothing, as in 'Convolution*,Affine1'.")
@click.option(
    "--compress",
    type=Choice(COMPRESSIONS),
    default=DEFAULTS.compress,
    help="Send gradients between ranks as float16 (fp16).",
)
@click.option(
    "--sync-batch-norm",
    is_flag=True,
    default=DEFAULTS.sync_batch_norm,
    help="Normalize batches by the statistics of all ranks, not by those of each rank's samples.",
)
@click.option("--epochs", type=count_from(1), default=DEFAULTS.epochs, help="Times through the training data.")
@click.option(
    "--patience", type=count_from(1), help="Stop after this many epochs that are not better on the part of --best-on."
)
@click.option(
    "--ema",
    type=Real(0, 1, max_open=True),
    metavar="DECAY",
    help="Evaluate and keep an exponential moving average of the weights; 0.999 is usual.",
)
@device_option
@threads_option
@click.option(
    "--graph/--no-graph",
    default=True,
    help="On a GPU, launch each step as one CUDA graph; the results have the same bits.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the run, new or empty.  [default: runs/<time>-<model>-<dataset>]",
)
@click.option(
    "--log",
    type=Choice(LOGS, case_sensitive=False),
    multiple=True,
    help="Also write metrics.csv, or the folder tensorboard; may be given twice.",
)
@click.option(
    "--checkpoint-every",
    type=INTERVAL,
    default=DEFAULTS.checkpoint_every,
    help="Save all that --resume needs: every 200 steps, 5m (minutes) or 1e (epochs).",
)
@click.option(
    "--keep-checkpoints",
    type=count_from(1),
    default=DEFAULTS.keep_checkpoints,
    help="How many of the last to keep, next to that of the best epoch.",
)
@click.option(
    "--find-lr",
    is_flag=True,
    help="Do not train: try 100 steps at learning rates from 1e-7 to 10, print the one at which the loss falls "
    "fastest, and keep the plot in the folder.",
)
@click.option("--quiet", is_flag=True, help="Print the last line and errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per epoch and a last one.")
@click.pass_context
def command(
    context: click.Context,
    data_dir: Path | None,
    device: str,
    threads: int | None,
    graph: bool,
    out: Path | None,
    find_lr: bool,
    quiet: bool,
    as_json: bool,
    run: ResumedRun | None,
    **options: Any,
) -> None:
    """Train a model and keep settings, metrics, the best model and figures in a folder.

    Ctrl-C, SIGTERM and SIGHUP end the training after the step under way, save it for --resume and keep the best model
    so far; a second one ends it at once. Where nothing can be printed any more, the training goes on.
    """
    start, ranks = time.perf_counter(), joined()
    if find_lr and run:
        raise UserError("--find-lr conflicts with --resume: the run has its learning rate")
    if find_lr and ranks is not None:
        raise UserError("--find-lr is for one process: start it without mpirun")
    settings = Settings.chosen(**options)
    with user_errors():
        make_logs(settings.log, Path(), "")  # a package that is missing is told before anything is made
    if ranks is not None:
        device, threads = own_device(ranks, device, threads)
    compute = choose_compute(device, threads)
    if ranks is not None:
        agree(ranks, settings, compute, graph)
    show_progress = sys.stderr.isatty() and not quiet
    data = in_turn(ranks, lambda: load_data(settings, data_dir, show_progress=show_progress))
    console = Console(quiet, as_json)
    with user_errors():
        trainer = build_trainer(settings, data, graph, ranks, run.config.get("ranks", 1) if run else None)
        if ranks is not None and ranks.rank:
            if run:
                run.restore(trainer)
            follow(trainer, ranks)
        if settings.init is not None and (run is None or run.sections is None):
            data = replace(data, notes=(*data.notes, started(trainer, Path(settings.init))))
        describe_input(trainer.network, data)
        config = describe(settings, trainer, data, data_dir, compute.device, compute.no_gpu, compute.threads)
        config["ranks"] = 1 if ranks is None else ranks.size
        part, tested = evaluated_part(settings, data), None
        folder = run.folder if run and run.folder else RunFolder.create(out, name=_name(trainer, data))
    context.call_on_close(folder.close)
    if find_lr:
        console.header(trainer.network, data, compute, folder)
        find_rate(trainer, folder, config, as_json)
        return
    with user_errors():
        recorder = Recorder(
            folder, lambda result, metrics: console.epoch(result, trainer.total_epochs, metrics, part), part
        )
        checkpoints = Checkpoints(folder.checkpoints, settings.checkpoint_every, settings.keep_checkpoints)
        trainer.callbacks += [recorder, *make_logs(settings.log, folder.path, part), checkpoints]
        other_bits = run.other_bits(config) if run else ""
        config = checkpoints.config = run.restore(trainer) if run else config
    try:
        with going_on_silently(), deferred():
            folder.save_config(config)
            write_atomically(folder.path / FILE, dump(config))
            console.header(trainer.network, data, compute, folder)
            if run:
                recorder.catch_up(trainer)
                console.resumed(trainer, other_bits)
            stop = train(trainer, recorder, console)
            if recorder.result is not None:
                recorder.restore(trainer.network)
                shown = "test" if stop is None and "test" in data.parts else part
                answers = predicted(trainer, settings, data, shown)
                tested = None if shown == part else answers
                stop = draw(trainer, data, shown, answers, recorder) or stop
            found = results(trainer, part, tested)
            if stop is None:
                ended = datetime.now().astimezone().isoformat(timespec="seconds")
                folder.save_config({**config, "ended": ended, "results": found})
            about = {
                "seconds": time.perf_counter() - start,
                "folder": str(folder.path),
                "interrupted": stop is not None,
            }
            end(ranks)
            console.end(trainer, data, part, tested, {**found, **about})
    except OSError as error:
        raise click.ClickException(f"{in_words(error)}; {kept(recorder)}; {how_to_go_on(recorder)}") from error
    except KeyboardInterrupt as late:  # it came after the last epoch
        click.echo(f"Interrupted after the training; {kept(recorder)}", err=True)
        stop = late
    if stop is not None:
        context.exit(getattr(stop, "exit_code", 130))


def _name(trainer: Trainer, data: Data) -> str:
    """Return the name of a run's folder, without its time."""
    return "-".join(re.sub(r"[^0-9A-Za-z._-]+", "_", name)[:60] for name in (trainer.network.title, data.name))
