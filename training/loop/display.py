"""Show a training as it runs, its progress and the table of its epochs: on a terminal, or in a notebook."""

from __future__ import annotations

import math
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from training.loop.callbacks import Callback, EpochResult
from training.loop.epoch_table import EpochTable, as_html
from training.loop.progress import Progress, ProgressBar
from training.terminal.bars import in_notebook, is_terminal
from training.terminal.tables import show

if TYPE_CHECKING:
    from training.loop.trainer import Trainer


def display_for(trainer: Trainer) -> Callback | None:
    """Return the callback that shows a training where it runs.

    It is None where nobody looks, standard error being no terminal, and where a callback shows the progress already.
    """
    if any(isinstance(callback, Progress) for callback in trainer.callbacks):
        return None
    if in_notebook():
        return NotebookDisplay()
    return TerminalDisplay() if is_terminal(sys.stderr) else None


class TerminalDisplay(ProgressBar):
    """A progress bar and, above it, the table of the epochs, on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._table: EpochTable | None = None

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        super().on_epoch_end(trainer, result)
        self._table = self._table or EpochTable(trainer.total_epochs)
        show(self._table.row(result, trainer.best is result, shutil.get_terminal_size().columns), sys.stderr)

    def on_run_end(self, trainer: Trainer) -> None:
        self.close()


class NotebookDisplay(ProgressBar):
    """A progress bar and the table of the epochs in a notebook's cell; the table stays when the training has ended.

    Args:
        interval: seconds between two updates, however short the epochs are.
    """

    def __init__(self, interval: float = 0.25) -> None:
        super().__init__(interval=interval)
        self._handle: Any = None
        self._updated = -math.inf

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        super().on_epoch_end(trainer, result)
        if time.perf_counter() >= self._updated + self._interval:
            self._update(trainer)

    def on_run_end(self, trainer: Trainer) -> None:
        self.close()
        if trainer.history:
            self._update(trainer)

    def _update(self, trainer: Trainer) -> None:
        from IPython.display import HTML, display

        self._updated = time.perf_counter()
        html = HTML(as_html(trainer.history, trainer.total_epochs))
        if self._handle is None:
            self._handle = display(html, display_id=True)
        else:
            self._handle.update(html)
