"""Show a training as it runs, its progress and the table of its epochs: on a terminal, or in a notebook."""

from __future__ import annotations

import math
import shutil
import sys
import time
from html import escape
from typing import TYPE_CHECKING, Any

from training.loop.callbacks import Callback, EpochResult
from training.loop.epoch_table import EpochTable, as_html
from training.loop.progress import Progress, ProgressBar, so_far

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
    return TerminalDisplay() if sys.stderr is not None and sys.stderr.isatty() else None


def in_notebook() -> bool:
    """Return True in a program that a notebook runs."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


class TerminalDisplay(ProgressBar):
    """A progress bar and, above it, the table of the epochs, on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._table: EpochTable | None = None

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        super().on_epoch_end(trainer, result)
        self._table = self._table or EpochTable(trainer.total_epochs)
        for line in self._table.lines(result, trainer.best is result, shutil.get_terminal_size().columns):
            print(line, file=sys.stderr)

    def on_run_end(self, trainer: Trainer) -> None:
        self.close()


class NotebookDisplay(Progress):
    """A progress bar and the table of the epochs in a notebook's cell; the table stays when the training has ended.

    Args:
        interval: seconds between two updates, however short the epochs are.
    """

    def __init__(self, interval: float = 0.25) -> None:
        super().__init__(interval)
        self._handle: Any = None
        self._updated = -math.inf

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        super().on_epoch_begin(trainer, epoch)
        if time.perf_counter() >= self._updated + self._interval:
            self._update(trainer, self._bar(trainer, self._done, ""))

    def show(self, trainer: Trainer, loss: float, accuracy: float, samples: int, rate: float) -> None:
        """Draw bar and table."""
        self._update(trainer, self._bar(trainer, samples, f"{so_far(loss, accuracy)}  {rate:,.0f} images/s"))

    def on_run_end(self, trainer: Trainer) -> None:
        self._update(trainer, "")

    def _bar(self, trainer: Trainer, samples: int, text: str) -> str:
        total = trainer.total_epochs * trainer.train_loader.samples
        said = escape(f"epoch {self._epoch}/{trainer.total_epochs}  {text}")
        return f'<progress value="{self._before + samples}" max="{total}"></progress> {said}'

    def _update(self, trainer: Trainer, bar: str) -> None:
        from IPython.display import HTML, display

        self._updated = time.perf_counter()
        html = HTML(bar + (as_html(trainer.history, trainer.total_epochs) if trainer.history else ""))
        if self._handle is None:
            self._handle = display(html, display_id=True)
        else:
            self._handle.update(html)
