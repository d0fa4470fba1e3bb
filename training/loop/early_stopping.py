"""Stop a training that no longer improves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend import checks
from training.loop.callbacks import Callback, EpochResult

if TYPE_CHECKING:
    from training.loop.trainer import Trainer


class EarlyStopping(Callback):
    """Callback that ends a training after ``patience`` epochs without a better test accuracy.

    Raises:
        TypeError: ``patience`` is not a whole number.
        ValueError: it is less than 1.
    """

    def __init__(self, patience: int) -> None:
        self.patience = checks.whole("patience", patience, 1, checks.LARGEST_SIZE)

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        best = trainer.best
        if best is not None and result.epoch - best.epoch >= self.patience:
            trainer.stop()
