"""Keeps a run in its folder as it goes: metrics, the best model, and in the end the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.files.durable import write_atomically
from training.loop.callbacks import Callback
from training.loop.stopping import check

if TYPE_CHECKING:
    from training.data import Dataset
    from training.loop.callbacks import EpochResult
    from training.loop.run_folder import RunFolder
    from training.loop.trainer import Trainer


class Recorder(Callback):
    """Writes metrics, and the model where it is the best so far, as soon as an epoch has ended.

    Args:
        folder: of the run.
        written: called with the result of an epoch and its metrics once both are on the disk.

    Attributes:
        kept: the epoch whose model is in the folder; 0 is the model of no whole epoch, None is none.
    """

    def __init__(self, folder: RunFolder, written: Callable[[EpochResult, dict[str, Any]], None]) -> None:
        self.folder = folder
        self.kept: int | None = None
        self._written = written

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        is_best = trainer.best is result
        if is_best:
            self._save(trainer, result.epoch)
        metrics = {**result.as_dict(), "best": is_best}
        self.folder.add_metrics(metrics)
        self._written(result, metrics)

    def keep_model(self, trainer: Trainer) -> None:
        """Puts the best model back into the network and into the folder; before the end of an epoch that as it is.

        Raises:
            OSError: it cannot be written.
        """
        if trainer.best is not None:
            trainer.restore_best()
        epoch = trainer.best.epoch if trainer.best else 0
        if self.kept != epoch or not self.folder.model.is_file():
            self._save(trainer, epoch)

    def _save(self, trainer: Trainer, epoch: int) -> None:
        before = _identity(self.folder.model)
        try:
            self.folder.save_model(trainer.network)
        finally:  # an error can come after the file is in its place, as the folder is synced
            if _identity(self.folder.model) != before:
                self.kept = epoch


def _identity(file: Path) -> tuple[int, int] | None:
    """Tells files of one name apart."""
    try:
        state = file.lstat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def draw_figures(trainer: Trainer, data: Dataset, folder: RunFolder) -> dict[str, BaseException]:
    """Draws learning curves, and of the model as it is the confusion matrix, worst mistakes and filters.

    Returns:
        By name, the figures that matplotlib has not drawn, and why: it may be broken in any way, or the memory full.

    Raises:
        OSError: one cannot be written; those before it are there.
        Interrupted: a signal has come; those before it are there.
    """
    from backend import asnumpy
    from training.loop import figures
    from training.loop.evaluation import predict

    predictions = predict(trainer.network, trainer.test_loader)
    weights = asnumpy(next(iter(trainer.network.params.values())))
    drawings: Sequence[tuple[str, Callable[[], Any]]] = (
        ("learning_curves", lambda: figures.learning_curves(trainer.history)),
        ("confusion_matrix", lambda: figures.confusion_matrix(predictions, data.classes)),
        ("worst_mistakes", lambda: figures.worst_mistakes(data.test_images, predictions, data.classes)),
        ("filters", lambda: figures.filters(weights, data.input_dim)),
    )
    undrawn: dict[str, BaseException] = {}
    for name, draw in drawings:
        check()
        try:
            content = figures.as_png(draw())
        except (Exception, SystemExit) as error:
            undrawn[name] = error
        else:
            write_atomically(folder.figure(name), content)
    return undrawn
