"""Save checkpoints while a training runs, so that it can go on after a kill or an interruption."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from backend import asnumpy, checks
from training.files.durable import make_folder
from training.loop import checkpoint
from training.loop.callbacks import Callback, EpochResult

if TYPE_CHECKING:
    from training.loop.trainer import Trainer

Every = str | int
"""An interval: steps (``200``), minutes (``"5m"``) or epochs (``"1e"``)."""

_PATTERN = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)([me]?)")


@dataclass(frozen=True)
class _Interval:
    """Every ``count`` steps, minutes (unit "m") or epochs ("e")."""

    count: float
    unit: str = ""

    @classmethod
    def parse(cls, every: Every) -> _Interval:
        """Return the interval that ``200``, ``5m`` (``0.5m``, too) or ``1e`` means."""
        if not isinstance(every, str):
            return cls(checks.whole("every", every, 1, checks.LARGEST_SIZE))
        match = _PATTERN.fullmatch(every)
        if not match or not float(match[1]) or ("." in match[1] and match[2] != "m"):
            raise checks.refusal(ValueError, "every", "steps as in 200, minutes as in 5m or epochs as in 1e", every)
        return cls(float(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.count:.12g}{self.unit}"


class Checkpoints(Callback):
    """Callback that writes checkpoints. Give it last: it saves the state of the others.

    A checkpoint is written at each interval, after an epoch that is the best so far, at the end of the run, and when
    Ctrl-C, or another ``KeyboardInterrupt`` between two steps, ends it. The last ones and that of the best epoch are
    kept. ``Trainer.resume`` goes on from any of them.

    Args:
        folder: of the checkpoints; made when the first is written.
        every: interval in steps (``200``), minutes (``"5m"``) or epochs (``"1e"``).
        keep: the number of last checkpoints that are kept, at least 1.
        config: anything JSON can hold, for whoever reads them.

    Attributes:
        file: the checkpoint that was written last, or None.

    Raises:
        TypeError: ``keep`` or ``every`` is neither a whole number nor, for ``every``, a string.
        ValueError: it is less than 1, or a string of another form.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from training import SGD, Checkpoints, Loader, Trainer, TwoLayerNet
        >>> def trainer(epochs, folder):
        ...     data = Loader(np.eye(4, dtype="float32"), np.arange(4), batch_size=2)
        ...     return Trainer(TwoLayerNet(4, 3, 4), data, data, SGD(), epochs=epochs, callbacks=[Checkpoints(folder)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     history = trainer(1, folder).train()
        ...     again = trainer(2, folder)
        ...     again.resume(folder)
        ...     [result.epoch for result in again.epochs()]
        [2]
    """

    def __init__(
        self, folder: str | Path, every: Every = "1e", keep: int = 2, config: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.every = _Interval.parse(every)
        self.keep = checks.whole("keep", keep, 1, checks.LARGEST_SIZE)
        self.config = config
        self.file: Path | None = None
        self._saved: tuple[int, int] | None = None
        self._failed = False
        self._when = time.monotonic()

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint now, and remove those that are not to be kept.

        Nothing is written of parameters that are not finite: the training is about to end with that error.

        Raises:
            OSError: it cannot be written; older ones are unchanged.
        """
        if not numpy.isfinite(asnumpy(trainer.network.params.flat)).all():
            return
        if not self.folder.is_dir():
            make_folder(self.folder)
        file = self.folder / checkpoint.file_name(trainer.step)
        checkpoint.save(trainer, file, self.config)
        self.file, self._saved, self._when = file, _place(trainer), time.monotonic()
        self._remove_others(trainer)

    def on_run_begin(self, trainer: Trainer) -> None:
        self._saved, self._failed, self._when = None, False, time.monotonic()
        if trainer.step or trainer.history:
            self._saved = _place(trainer)  # where it was interrupted, or resumed

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        every = self.every
        is_due = step % every.count == 0 if not every.unit else every.unit == "m" and self._minutes() >= every.count
        if is_due:
            self.save(trainer)

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        is_due = self.every.unit == "e" and result.epoch % self.every.count == 0
        if is_due or result is trainer.best:
            self.save(trainer)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._failed = True
        if isinstance(error, KeyboardInterrupt) and not trainer.is_in_step:
            self.save(trainer)

    def on_run_end(self, trainer: Trainer) -> None:
        if self._failed:
            return
        if self._saved != _place(trainer):
            self.save(trainer)
        self._remove_others(trainer)  # what a run that was killed has left

    def _remove_others(self, trainer: Trainer) -> None:
        """Remove all checkpoints but the last ones up to this step and that of the best epoch.

        Later ones are of a run that went on from an earlier checkpoint.
        """
        files = checkpoint.list_files(self.folder)
        names = [file.name for file in files]
        here = checkpoint.file_name(trainer.step)
        if here not in names:  # parameters that are not finite are not saved
            return
        kept = set(names[: names.index(here) + 1][-self.keep :])
        if trainer.best is not None:
            kept.add(checkpoint.file_name(trainer.best.epoch * len(trainer.train_loader)))
        for file in files:
            if file.name not in kept:
                file.unlink(missing_ok=True)

    def _minutes(self) -> float:
        return (time.monotonic() - self._when) / 60


def _place(trainer: Trainer) -> tuple[int, int]:
    return trainer.step, len(trainer.history)
