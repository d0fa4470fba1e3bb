"""Write a run into its folder while it runs: metrics, the best model, and at the end the figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.files.durable import write_atomically
from training.loop.best_model import BestModel
from training.loop.evaluation import Predictions
from training.loop.stopping import check
from training.models.saving import save_arrays

if TYPE_CHECKING:
    from training.data import Data
    from training.loop.callbacks import EpochResult
    from training.loop.evaluation import Evaluation
    from training.loop.run_folder import RunFolder
    from training.loop.trainer import Trainer


class Recorder(BestModel):
    """Callback that writes metrics, and the model if it is the best so far, as soon as an epoch has ended.

    Args:
        folder: the run's folder.
        written: called with the result of an epoch and its metrics once both are on the disk.
        part: the part of the data that epochs are evaluated on, "val" or "test": the prefix of its metrics' names.

    Attributes:
        kept: the epoch whose model is in the folder: 0 before the end of an epoch, None for no model.
    """

    def __init__(
        self, folder: RunFolder, written: Callable[[EpochResult, dict[str, Any]], None], part: str = "test"
    ) -> None:
        super().__init__()
        self.folder = folder
        self.kept: int | None = None
        self._written = written
        self.part = part

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        super().on_epoch_end(trainer, result)
        is_best = self.result is result
        if is_best:
            self._note(trainer)
            self._save(trainer, result.epoch)
        metrics = {**result.as_dict(self.part), "best": is_best}
        self.folder.add_metrics(metrics)
        self._written(result, metrics)

    def catch_up(self, trainer: Trainer) -> None:
        """Bring the folder to the place of a trainer that was resumed: what came after its checkpoint is undone.

        Raises:
            OSError: a file cannot be written.
        """
        records, best = [], None
        for result in trainer.history:
            is_best = self.is_better(result, best)
            best = result if is_best else best
            records.append({**result.as_dict(self.part), "best": is_best})
        self.folder.save_metrics(records)
        if self.result is not None:
            self._note(trainer)
            save_arrays(self.folder.model, self.arrays(), trainer.network.description())
            self.kept = self.result.epoch

    def keep_model(self, trainer: Trainer) -> None:
        """Restore the best model in network and folder; if no epoch has ended, write the model as it is.

        Raises:
            OSError: it cannot be written.
        """
        if self.result is not None:
            self.restore(trainer.network)
        epoch = self.result.epoch if self.result else 0
        if self.kept != epoch or not self.folder.model.is_file():
            self._save(trainer, epoch)

    def _note(self, trainer: Trainer) -> None:
        """Write into the network's config how far it was trained, and with what results: no times, which differ."""
        if self.result is not None:
            results = self.result.as_dict(self.part)
            kept = {name: value for name, value in results.items() if name not in ("seconds", "images_per_second")}
            network = trainer.network
            network.config = {**(network.config or {}), "training": {**kept, "epochs": trainer.total_epochs}}

    def _save(self, trainer: Trainer, epoch: int) -> None:
        before = _identity(self.folder.model)
        try:
            self.folder.save_model(trainer.network)
        finally:  # an error can come after the file is in its place, as the folder is synced
            if _identity(self.folder.model) != before:
                self.kept = epoch


def _identity(file: Path) -> tuple[int, int] | None:
    """Return what distinguishes files of one name; None if there is no file."""
    try:
        state = file.lstat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def draw_figures(
    trainer: Trainer, data: Data, part: str, predictions: Predictions | Evaluation, recorder: Recorder
) -> dict[str, BaseException]:
    """Draw learning curves, and the model's filters and, where it predicts classes, confusion matrix and mistakes.

    Args:
        part: of the data.
        predictions: those of the best model for this part, or how good they are.

    Returns:
        By name, the figures that matplotlib could not draw, and the exception: any kind, or memory is exhausted.

    Raises:
        OSError: a figure cannot be written; earlier ones are written.
        Interrupted: a signal has arrived; earlier figures are written.
    """
    from backend import asnumpy
    from training.loop import figures

    images = data.parts[part].inputs
    weights = asnumpy(next(iter(trainer.network.params.values())))
    drawings: dict[str, Callable[[], Any]] = {
        "learning_curves": lambda: figures.learning_curves(trainer.history, recorder.part)
    }
    if isinstance(predictions, Predictions):
        drawings["confusion_matrix"] = lambda: figures.confusion_matrix(predictions, data.classes)
        if len(data.shape) == 3:
            drawings["worst_mistakes"] = lambda: figures.worst_mistakes(images, predictions, data.classes)
    if len(data.shape) == 3:
        drawings["filters"] = lambda: figures.filters(weights, data.shape)
    undrawn: dict[str, BaseException] = {}
    for name, draw in drawings.items():
        check()
        try:
            content = figures.as_png(draw())
        except (Exception, SystemExit) as error:
            undrawn[name] = error
        else:
            write_atomically(recorder.folder.figure(name), content)
    return undrawn
