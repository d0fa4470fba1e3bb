"""The training of ``xpnet train``: what it ends with, in words and in the run's folder."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from training.cli.common import UserError, in_words
from training.files.printable import printable
from training.loop.settings import EVALUATION_BATCH, EVALUATION_FACTOR

if TYPE_CHECKING:
    from training.cli.report import Report
    from training.data import Dataset
    from training.loop.recorder import Recorder
    from training.loop.trainer import Trainer


def train(trainer: Trainer, recorder: Recorder, report: Report) -> KeyboardInterrupt | None:
    """Trains; after each epoch the metrics, and the model if it is the best so far, are on the disk.

    Returns:
        What has interrupted it: then the best model is in the folder, which is said.

    Raises:
        OSError: something cannot be written.
        ClickException: the training failed.
    """
    from training.loop.non_finite import NonFiniteError
    from training.loop.progress import ProgressBar
    from training.loop.stopping import StopOnSignal

    bar = ProgressBar() if report.shows_progress else None
    trainer.callbacks += [*([bar] if bar else []), recorder, StopOnSignal()]
    try:
        with bar or nullcontext(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's of an overflow: the trainer says what comes of it
            trainer.train()
    except NonFiniteError as error:
        raise click.ClickException(f"{error}; {kept(recorder)}") from error
    except MemoryError as error:
        raise UserError(
            f"{error}; give a smaller --model or --batch-size (for the evaluation it counts "
            f"{EVALUATION_FACTOR} times, up to {EVALUATION_BATCH}); {kept(recorder)}"
        ) from error
    except KeyboardInterrupt as stop:
        recorder.keep_model(trainer)
        report.interrupted(trainer, recorder.folder, getattr(stop, "name", ""))
        return stop
    return None


def draw(trainer: Trainer, data: Dataset, recorder: Recorder) -> KeyboardInterrupt | None:
    """Draws the figures, and says which matplotlib has not drawn; returns what has interrupted it.

    Raises:
        OSError: one cannot be written.
    """
    from training.loop.recorder import draw_figures

    try:
        undrawn = draw_figures(trainer, data, recorder.folder)
    except KeyboardInterrupt as stop:
        click.echo(f"Interrupted as the figures were drawn; {kept(recorder)}", err=True)
        return stop
    if undrawn:
        reason = next(iter(undrawn.values()))
        click.echo(
            f"Not drawn: {', '.join(undrawn)} ({type(reason).__name__}: {in_words(reason)}); {kept(recorder)}", err=True
        )
    return None


def kept(recorder: Recorder) -> str:
    """Where the last whole model is, for an error's line."""
    if recorder.kept is None:
        return "no model has been written"
    which = f"the best model so far, of epoch {recorder.kept}," if recorder.kept else "the model as it was"
    return f"{which} is kept in {printable(recorder.folder.model)}"
