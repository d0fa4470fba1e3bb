"""The lines that ``xpnet train`` prints: for people, as JSON, or only the last one."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from training.cli.common import Compute
from training.data import Data
from training.files.printable import printable
from training.loop.callbacks import EpochResult
from training.loop.epoch_table import EpochTable
from training.loop.evaluation import Evaluation, Predictions
from training.loop.progress import ProgressBar, ProgressLines, epoch_line
from training.loop.run_folder import RunFolder, json_line
from training.loop.trainer import Trainer
from training.models import Network
from training.terminal.tables import show

_PARTS = {"val": "validation", "test": "test"}


class Console:
    """Prints about a training: lines for people to standard output; with JSON there, the header to standard error.

    Args:
        quiet: print only the last line and errors.
        as_json: one JSON object per epoch and one at the end.
    """

    def __init__(self, quiet: bool, as_json: bool) -> None:
        self._quiet = quiet
        self._json = as_json
        self._table: EpochTable | None = None
        self._held = ""
        self._next = 0.0

    def progress(self) -> ProgressBar | ProgressLines | None:
        """Return what shows the progress: a bar on a terminal, else lines; None if none is wanted."""
        if self._quiet:
            return None
        return ProgressBar() if sys.stderr.isatty() else ProgressLines()

    def header(self, network: Network, data: Data, compute: Compute, folder: RunFolder) -> None:
        """Print the model, the data, the device and the run's folder."""
        if self._quiet:
            return
        parameters = sum(array.size for array in network.params.values())
        lines = {
            "model": f"{network.title}, {parameters:,} parameters",
            **data.describe(),
            "device": str(compute),
            "threads": str(compute.threads),
            "folder": printable(folder.path),
        }
        for key, text in [*lines.items(), *(("note", note) for note in data.notes)]:
            click.echo(f"{key:8} {text}", err=self._json)

    def resumed(self, trainer: Trainer, other_bits: str) -> None:
        """Print where a run goes on, and what may change its bits."""
        if not self._quiet:
            epoch = min(len(trainer.history) + 1, trainer.total_epochs)
            place = f"after step {trainer.step:,}, in epoch {epoch} of {trainer.total_epochs}"
            click.echo(f"{'resumed':8} {place}", err=self._json)
        if other_bits:
            click.echo(f"{'note':8} the last bits may differ from before: {other_bits}", err=True)

    def epoch(self, result: EpochResult, epochs: int, metrics: Mapping[str, Any], part: str = "test") -> None:
        """Print an epoch's line: the row of a table on a terminal; elsewhere at most one line a second."""
        if self._quiet:
            return
        if self._json:
            click.echo(json_line(metrics))
        elif sys.stdout.isatty():
            self._table = self._table or EpochTable(epochs, part)
            show(self._table.row(result, metrics["best"], shutil.get_terminal_size().columns))
        else:
            self._held = epoch_line(result, epochs, metrics["best"], part)
            if time.monotonic() >= self._next:
                self.flush()

    def flush(self) -> None:
        """Print the latest epoch's line if it was held back."""
        if self._held:
            click.echo(self._held)
            self._held, self._next = "", time.monotonic() + 1

    def interrupted(self, best: EpochResult | None, folder: RunFolder, signal_name: str, remedy: str) -> None:
        """Print where the model is after Ctrl-C or a signal, and how to go on."""
        if best is None:
            what = "no epoch had ended; the model as it was"
        else:
            what = f"the best model so far, of epoch {best.epoch},"
        by = f" by {signal_name}" if signal_name else ""
        click.echo(f"Interrupted{by}: {what} is in {printable(folder.model)}; {remedy}", err=True)

    def end(
        self,
        trainer: Trainer,
        data: Data,
        part: str,
        tested: Predictions | Evaluation | None,
        record: Mapping[str, Any],
    ) -> None:
        """Print the last line.

        Args:
            part: by which the best epoch was chosen.
            tested: the best epoch's model on the test part, if another part has chosen it.
            record: what the line says, for ``--json``.
        """
        best, last = trainer.best, trainer.history[-1] if trainer.history else None
        if self._json:
            click.echo(json_line(record))
        elif best and last:
            where = f"in epoch {best.epoch} of {len(trainer.history)}"
            if math.isnan(best.test_accuracy):  # numbers are predicted
                results = [f"best: {part} loss {best.test_loss:.4f}, {where}", f"last: {last.test_loss:.4f}"]
            else:
                name, samples = _PARTS[part], "images" if len(data.shape) == 3 else "rows"
                samples = "labels" if data.kind == "multi-label" else samples
                results = [
                    f"best: {100 * best.test_accuracy:.2f} % of the {name} {samples} right, {where}",
                    f"last: {100 * last.test_accuracy:.2f} %",
                ]
            if tested is not None:
                results[1:] = [f"on the test data, used this once: {_result(tested)}"]
            click.echo("; ".join([*results, f"{record['seconds']:.1f} s", printable(record["folder"])]))


def _result(tested: Predictions | Evaluation) -> str:
    """Return a result on the test part in words."""
    if isinstance(tested, Predictions):
        return f"{100 * tested.accuracy:.2f} %, {tested.correct:,} of {len(tested.labels):,}"
    results = [] if math.isnan(tested.accuracy) else [f"{100 * tested.accuracy:.2f} %"]
    single = {name: value for name, value in tested.metrics.items() if isinstance(value, float)}
    return ", ".join([*results, *(f"{name} {value:.4g}" for name, value in single.items())])
