"""The training of ``xpnet train``: errors and interruptions are reported, and the best model is kept."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from training.cli.common import UserError, in_words
from training.cli.console import Console
from training.cli.inputs import find_model
from training.data import Data
from training.distributed.communicator import RanksError
from training.files.printable import printable
from training.loop.callbacks import Callback
from training.loop.evaluation import Evaluation, Predictions
from training.loop.logs import CsvLog, TensorBoardLog
from training.loop.non_finite import NonFiniteError
from training.loop.progress import ProgressBar
from training.loop.recipe import evaluation_batch, measure
from training.loop.recorder import Recorder, draw_figures
from training.loop.settings import EVALUATION_BATCH, EVALUATION_FACTOR, Settings
from training.loop.trainer import Trainer
from training.models.starting import start_from

LOGS = ("csv", "tensorboard")


def make_logs(names: Iterable[str], folder: Path, part: str) -> list[Callback]:
    """Return the callbacks that write the logs of these names into a run's folder, which need not exist yet.

    Raises:
        ValueError: a package is missing.
    """
    made: dict[str, Callable[[], Callback]] = {
        "csv": lambda: CsvLog(folder / "metrics.csv", part),
        "tensorboard": lambda: TensorBoardLog(folder / "tensorboard", part),
    }
    try:
        return [made[name]() for name in dict.fromkeys(names)]
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error


def started(trainer: Trainer, run: Path) -> str:
    """Let a training begin with the parameters of a model. Return what was done, in words.

    Raises:
        UserError: there is no such model.
        ValueError: it does not fit.
        OSError: it cannot be read.
    """
    file = find_model(run)
    new = start_from(trainer.network, file)
    left = f"; new layers: {', '.join(new)}" if new else ""
    return f"begins with the parameters of {printable(file)}{left}"


def train(trainer: Trainer, recorder: Recorder, console: Console) -> KeyboardInterrupt | None:
    """Train, unless all is done; after each epoch write the metrics, and the model if it is the best so far.

    Returns:
        The interrupt that ended it, or None. The best model is then in the folder, and the console says so.

    Raises:
        OSError: something cannot be written.
        ClickException: the training failed.
    """
    progress = console.progress()
    trainer.callbacks[1:1] = [progress] if progress else []
    try:
        with progress if isinstance(progress, ProgressBar) else nullcontext(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's of an overflow: the trainer says what comes of it
            trainer.train(quiet=True)
    except (NonFiniteError, RanksError) as error:
        raise click.ClickException(f"{error}; {kept(recorder)}") from error
    except MemoryError as error:
        raise UserError(
            f"{error}; give a smaller --model or --batch-size (for the evaluation it counts "
            f"{EVALUATION_FACTOR} times, up to {EVALUATION_BATCH}); {kept(recorder)}"
        ) from error
    except KeyboardInterrupt as stop:
        recorder.keep_model(trainer)
        console.interrupted(recorder.result, recorder.folder, getattr(stop, "name", ""), how_to_go_on(recorder))
        return stop
    finally:
        console.flush()
    return None


def predicted(trainer: Trainer, settings: Settings, data: Data, part: str) -> Predictions | Evaluation:
    """Predict a part of the data with the network as it is.

    Returns:
        The predictions; for a network that predicts labels or numbers, how good they are.

    Raises:
        ClickException: the loss is not finite.
    """
    dtype, batch_size = trainer.network.params.flat.dtype, evaluation_batch(settings.batch_size)
    loader = data.loader(part, batch_size, shuffle=False, dtype=dtype)
    try:
        return measure(trainer.network, loader)
    except NonFiniteError as error:
        raise click.ClickException(f"the {part} data: {error}") from error


def results(trainer: Trainer, part: str, tested: Predictions | Evaluation | None) -> dict[str, Any]:
    """Return the results of a training in the types of JSON, for the run's configuration and ``--json``.

    Args:
        part: by which the best epoch was chosen.
        tested: the best epoch's model on the test part, if another part has chosen it.
    """
    best, last = trainer.best, trainer.history[-1] if trainer.history else None
    found: dict[str, Any] = {
        "best_epoch": best and best.epoch,
        f"best_{part}_accuracy": best and best.test_accuracy,
        f"{part}_accuracy": last and last.test_accuracy,
        "epochs": len(trainer.history),
    }
    if tested is not None:
        found |= {"test_accuracy": tested.accuracy, "test_loss": tested.loss, **tested.metrics}
    return found


def draw(
    trainer: Trainer, data: Data, part: str, tested: Predictions | Evaluation, recorder: Recorder
) -> KeyboardInterrupt | None:
    """Draw the figures, print which could not be drawn, and return the interrupt that ended it, or None.

    Raises:
        OSError: one cannot be written.
    """
    try:
        undrawn = draw_figures(trainer, data, part, tested, recorder)
    except KeyboardInterrupt as stop:
        click.echo(f"Interrupted as the figures were drawn; {kept(recorder)}", err=True)
        return stop
    if undrawn:
        reason = next(iter(undrawn.values()))
        click.echo(
            f"Not drawn: {', '.join(undrawn)} ({type(reason).__name__}: {in_words(reason)}); {kept(recorder)}", err=True
        )
    return None


def how_to_go_on(recorder: Recorder) -> str:
    """Return the command that goes on with the run, for the end of a line."""
    return f"go on with: xpnet train --resume {shlex.quote(printable(recorder.folder.path))}"


def kept(recorder: Recorder) -> str:
    """Return where the last complete model is, for the end of an error's line."""
    if recorder.kept is None:
        return "no model has been written"
    which = f"the best model so far, of epoch {recorder.kept}," if recorder.kept else "the model as it was"
    return f"{which} is kept in {printable(recorder.folder.model)}"
