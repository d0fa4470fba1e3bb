"""Show the progress of a training run on a terminal, and its epochs in lines."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from backend.transfer import HostCopy
from training.loop.callbacks import Callback, EpochResult

if TYPE_CHECKING:
    from training.loop.trainer import Trainer

REFRESH_SECONDS = 0.1


class ProgressBar(Callback):
    """Progress bar of the whole run, with loss and accuracy of the epoch so far, images per second and the time left.

    It never waits for the device: totals are copied asynchronously and shown when they have arrived. Most steps cost
    one reading of the clock. Use it in a ``with``, which removes the bar from the terminal at the end.

    Args:
        file: where to draw; None means standard error.
        interval: seconds between two updates of the bar.
    """

    def __init__(self, file: TextIO | None = None, interval: float = REFRESH_SECONDS) -> None:
        self._file = file
        self._interval = interval
        self._next = 0.0
        self._bar: Any = None
        self._totals: HostCopy | None = None
        self._before = self._done = 0
        self._epoch = ""
        self._has_accuracy = True
        self._start = 0.0

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        self._before = (epoch - 1) * trainer.train_loader.samples
        self._done = trainer.so_far.batches * trainer.train_loader.largest_batch  # where an epoch goes on
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=trainer.total_epochs * trainer.train_loader.samples,
                file=self._file,
                dynamic_ncols=True,
                leave=False,
                bar_format="{desc} {percentage:3.0f}% |{bar:24}|",
                initial=self._before + self._done,
            )
        self._start = time.perf_counter()
        self._totals = None
        self._has_accuracy = trainer.network.last_layer.target_kind != "values"
        self._epoch = f"epoch {epoch}/{trainer.total_epochs}"
        self._bar.set_description_str(self._epoch)

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        now = time.perf_counter()
        if now < self._next:
            return
        if self._totals is None:
            self._totals = trainer.running_totals()
        if self._totals.done:
            self._show(*(float(total) for total in self._totals.get()))
            self._totals = None
            self._next = now + self._interval

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        self._bar.clear()  # the epoch's line takes its place

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _show(self, loss: float, correct: float, samples: float) -> None:
        rate = (samples - self._done) / (time.perf_counter() - self._start)
        accuracy = f"  accuracy {100 * correct / samples:.2f} %" if self._has_accuracy else ""
        self._bar.set_description_str(f"{self._epoch}  loss {loss / samples:.4f}{accuracy}", refresh=False)
        self._bar.bar_format = f"{{desc}} {{percentage:3.0f}}% |{{bar:24}}| {rate:,.0f} images/s, {{remaining}} left"
        self._bar.n = self._before + int(samples)
        self._bar.refresh()


class ProgressLines(Callback):
    """Progress in the place of a bar where the output is a file or a pipe: a plain line now and then.

    Args:
        file: where to print; None means standard error.
        interval: seconds between two lines, at least 1.
    """

    def __init__(self, file: TextIO | None = None, interval: float = 30.0) -> None:
        self._file = file
        self._interval = max(1.0, interval)
        self._next = time.perf_counter() + self._interval
        self._totals: HostCopy | None = None
        self._epoch = 0

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        self._epoch = epoch
        self._totals = None

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        now = time.perf_counter()
        if now < self._next:
            return
        if self._totals is None:
            self._totals = trainer.running_totals()
        if self._totals.done:
            loss, _, samples = (float(total) for total in self._totals.get())
            self._totals = None
            self._next = now + self._interval
            part = 100 * samples / trainer.train_loader.samples
            text = f"epoch {self._epoch}/{trainer.total_epochs}  {part:3.0f} % done  loss {loss / samples:.4f}"
            print(text, file=self._file or sys.stderr, flush=True)


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
        f"{result.images_per_second:8,.0f} images/s  {result.seconds:6.1f} s{'  best' if is_best else ''}{skipped}"
    )
