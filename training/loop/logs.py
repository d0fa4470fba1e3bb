"""Log the results of each epoch for other programs: as a table (CSV), and for TensorBoard."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.files import json_text
from training.files.durable import write_atomically
from training.loop.callbacks import Callback, EpochResult

if TYPE_CHECKING:
    from training.loop.trainer import Trainer


class CsvLog(Callback):
    """Callback that writes a table of all epochs, one in a row, each time that one has ended.

    The file is written anew from the history: it is complete at any time, and right after a resume. Metrics that are
    lists or dictionaries are JSON in their cells; numbers that are not finite are empty.

    Args:
        file: of the table; an older one is replaced.
        part: the part of the data that epochs are evaluated on, "val" or "test": the prefix of its columns.
    """

    def __init__(self, file: str | Path, part: str = "test") -> None:
        self.file = Path(file)
        self.part = part

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        rows = [_flat(each, self.part) for each in trainer.history]
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[-1]), restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        write_atomically(self.file, text.getvalue().encode())


class TensorBoardLog(Callback):
    """Callback that writes the numbers of each epoch for TensorBoard, by the package ``tensorboardX``.

    Where a run goes on from a checkpoint, TensorBoard forgets what came after that.

    Args:
        folder: which ``tensorboard --logdir`` is given.
        part: as for ``CsvLog``.

    Raises:
        ModuleNotFoundError: ``tensorboardX`` is not installed.
    """

    def __init__(self, folder: str | Path, part: str = "test") -> None:
        try:
            import tensorboardX
        except ModuleNotFoundError as error:
            if error.name != "tensorboardX":
                raise
            raise ModuleNotFoundError(
                "logs for TensorBoard need tensorboardX; remedy: pip install 'xpnet[tensorboard]'", name=error.name
            ) from None
        self._make: Any = tensorboardX.SummaryWriter
        self._writer: Any = None
        self.folder = Path(folder)
        self.part = part

    def on_run_begin(self, trainer: Trainer) -> None:
        self._writer = self._make(str(self.folder), purge_step=trainer.step + 1 if trainer.step else None)

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        for name, value in _flat(result, self.part).items():
            if isinstance(value, (int, float)) and name != "epoch":
                self._writer.add_scalar(name, value, trainer.step)
        self._writer.flush()

    def on_run_end(self, trainer: Trainer) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _flat(result: EpochResult, part: str) -> dict[str, Any]:
    """Return the fields of a result and its metrics by name."""
    fields = result.as_dict(part)
    metrics = fields.pop("metrics")
    return {**fields, **metrics}


def _cell(value: Any) -> Any:
    text = json_text.dump(value)
    return "" if text == "null" else text
