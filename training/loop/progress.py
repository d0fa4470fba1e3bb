"""Show the progress of a training run on a terminal, and its epochs in lines."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, TextIO

from backend.transfer import HostCopy
from training.loop.callbacks import Callback, EpochResult
from training.terminal.bars import REFRESH_SECONDS, Bar, bar

if TYPE_CHECKING:
    from training.loop.trainer import Trainer


class Progress(Callback):
    """Base of what shows the progress of a training.

    It never waits for the device: totals are copied asynchronously and shown when they have arrived. Most steps cost
    one reading of the clock.

    Args:
        interval: seconds between two looks at the totals.
        delay: seconds before the first one.
    """

    def __init__(self, interval: float = REFRESH_SECONDS, delay: float = 0.0) -> None:
        self._interval = interval
        self._next = time.perf_counter() + delay
        self._totals: HostCopy | None = None
        self._seen = 0  # samples at these totals, which count the rows of a loss: steps or pixels may be samples' rows
        self._epoch = self._before = self._done = self._first = 0
        self._start = 0.0

    def show(self, trainer: Trainer, loss: float, accuracy: float, samples: int, rate: float) -> None:
        """Show the epoch so far: means over its samples, NaN for no accuracy, and the images per second."""
        raise NotImplementedError

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        self._epoch = epoch
        self._before = (epoch - 1) * trainer.train_loader.samples
        self._done = trainer.so_far.batches * trainer.train_loader.largest_batch  # where an epoch goes on
        self._first = trainer.samples
        self._start = time.perf_counter()
        self._totals = None

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        now = time.perf_counter()
        if now < self._next:
            return
        if self._totals is None:
            self._totals, self._seen = trainer.running_totals(), trainer.samples - self._first
        if self._totals.done:
            loss, correct, rows = (float(total) for total in self._totals.get())
            has_accuracy = trainer.network.last_layer.target_kind != "values"
            rate = self._seen / max(now - self._start, 1e-9)
            accuracy = correct / rows if has_accuracy else math.nan
            self.show(trainer, loss / rows, accuracy, self._done + self._seen, rate)
            self._totals = None
            self._next = now + self._interval


class ProgressBar(Progress):
    """Progress bar of the whole run, with loss and accuracy of the epoch so far, images per second and the time left.

    It is drawn on a terminal, and in a notebook. Use it in a ``with``, which removes the bar at the end.

    Args:
        file: where to draw; None means standard error, or the notebook's cell.
        interval: seconds between two updates of the bar.
    """

    def __init__(self, file: TextIO | None = None, interval: float = REFRESH_SECONDS) -> None:
        super().__init__(interval)
        self._file = file
        self._bar: Bar | None = None

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        super().on_epoch_begin(trainer, epoch)
        done, text = self._before + self._done, f"epoch {epoch}/{trainer.total_epochs}"
        if self._bar is None:
            total = trainer.total_epochs * trainer.train_loader.samples or None
            self._bar = bar(text, total, unit="samples", done=done, interval=0.0, file=self._file)
        else:
            self._bar.update(done, text)

    def show(self, trainer: Trainer, loss: float, accuracy: float, samples: int, rate: float) -> None:
        """Draw the bar."""
        if self._bar is not None:
            text = f"epoch {self._epoch}/{trainer.total_epochs}  {so_far(loss, accuracy)}"
            self._bar.update(self._before + samples, text, f"{rate:,.0f} samples/s")

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        if self._bar is not None:
            self._bar.hide()  # the epoch's line takes its place

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class ProgressLines(Progress):
    """Progress in the place of a bar where the output is a file or a pipe: a plain line now and then.

    Args:
        file: where to print; None means standard error.
        interval: seconds between two lines, at least 1.
    """

    def __init__(self, file: TextIO | None = None, interval: float = 30.0) -> None:
        interval = max(1.0, interval)
        super().__init__(interval, interval)
        self._file = file

    def show(self, trainer: Trainer, loss: float, accuracy: float, samples: int, rate: float) -> None:
        """Print a line."""
        total = trainer.train_loader.samples
        part = f"{100 * samples / total:3.0f} % done" if total else f"{samples:,} samples done"
        text = f"epoch {self._epoch}/{trainer.total_epochs}  {part}  {so_far(loss, accuracy)}  {rate:,.0f} samples/s"
        print(text, file=self._file or sys.stderr, flush=True)


def so_far(loss: float, accuracy: float) -> str:
    """Return loss and accuracy of an epoch under way as text; an accuracy that is NaN is left out."""
    return f"loss {loss:.4f}" + ("" if math.isnan(accuracy) else f"  accuracy {100 * accuracy:.2f} %")


def epoch_line(result: EpochResult, epochs: int, is_best: bool, part: str = "test") -> str:
    """Return an epoch's result in one line, of the same width for every epoch."""
    skipped = f"  {result.skipped_steps} steps skipped" if result.skipped_steps else ""
    lines = [f"loss {result.loss:.4f}", f"{part} loss {result.test_loss:.4f}"]
    if not math.isnan(result.test_accuracy):  # of classes
        lines[0] += f"  accuracy {100 * result.accuracy:6.2f} %"
        lines[1] += f"  {part} accuracy {100 * result.test_accuracy:6.2f} %"
    lines += [f"{part} {name} {value:.4g}" for name, value in result.metrics.items() if isinstance(value, float)]
    return (
        f"epoch {result.epoch:{len(str(epochs))}}/{epochs}  {'  '.join(lines)}  "
        f"{result.images_per_second:8,.0f} samples/s  {result.seconds:6.1f} s{'  best' if is_best else ''}{skipped}"
    )
