"""Show the epochs of a run as a table: rows of text for a terminal, HTML for a notebook."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from training.loop.callbacks import EpochResult
from training.terminal.tables import table_row

if TYPE_CHECKING:
    from rich.table import Table

    from training.loop.trainer import Trainer

_WIDTHS = {"loss": 6, "accuracy": 8, "time": 7, "samples/s": 9}
_MARK = "best"


def cells(result: EpochResult, epochs: int, part: str = "test") -> dict[str, str]:
    """Return the texts of an epoch's row by column, the most important first.

    Args:
        epochs: the number of epochs of the whole run.
        part: the part of the data that was evaluated.
    """
    has_accuracy = not math.isnan(result.test_accuracy)
    found = {"epoch": f"{result.epoch}/{epochs}", "loss": _number(result.loss)}
    if has_accuracy:
        found["accuracy"] = f"{100 * result.accuracy:.2f} %"
    found[f"{part} loss"] = _number(result.test_loss)
    if has_accuracy:
        found[f"{part} accuracy"] = f"{100 * result.test_accuracy:.2f} %"
    numbers = {name: value for name, value in result.metrics.items() if isinstance(value, float)}
    found |= {f"{part} {name}": f"{value:.4g}" for name, value in numbers.items()}
    found |= {"time": f"{result.seconds:.1f} s", "samples/s": f"{result.images_per_second:,.0f}"}
    if result.skipped_steps:
        found["steps skipped"] = str(result.skipped_steps)
    return found


class EpochTable:
    """Rows of text that are never wider than the terminal: columns that find no place are left out, the last first.

    Args:
        epochs: the number of epochs of the whole run.
        part: the part of the data that was evaluated.
    """

    def __init__(self, epochs: int, part: str = "test") -> None:
        self._epochs = epochs
        self._part = part
        self._shown: list[str] = []

    def row(self, result: EpochResult, is_best: bool, width: int) -> Table:
        """Return an epoch's row, below the heads where the columns are not those of the row before."""
        row = cells(result, self._epochs, self._part)
        widths = {name: max(len(name), _WIDTHS.get(name, 0)) for name in row}
        widths["epoch"] = max(len("epoch"), 2 * len(str(self._epochs)) + 1)
        shown: list[str] = []
        for name in row:
            if sum(widths[each] + 2 for each in (*shown, name)) + len(_MARK) > width - 1 and shown:
                break
            shown.append(name)
        has_heads, self._shown = shown != self._shown, shown
        return table_row({name: row[name] for name in shown}, widths, has_heads, _MARK if is_best else "")


def as_html(history: Iterable[EpochResult], epochs: int | None = None, part: str = "test", most: int = 100) -> str:
    """Return the results of epochs as an HTML table; the row of the best is bold.

    Args:
        epochs: the number of epochs of the whole run; None for that of the last result.
        most: how many of the last epochs are shown; the best is shown in any case.
    """
    results = list(history)
    best = max(results, key=lambda result: result.rank, default=None)
    shown = results[-most:]
    if best is not None and all(result is not best for result in shown):
        shown.insert(0, best)
    rows = [cells(result, epochs or results[-1].epoch, part) for result in shown]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    texts = [[row.get(name, "") for name in columns] for row in rows]
    left_out = f"{len(results) - len(shown):,} epochs before these are not shown" if len(shown) < len(results) else ""
    return html_table(columns, texts, [result is best for result in shown], left_out)


class History(list[EpochResult]):
    """The results of a run's epochs: a list, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        return as_html(self)


def results_html(loss: float, accuracy: float, metrics: Mapping[str, Any]) -> str:
    """Return the results of an evaluation as an HTML table; those that are not single numbers are left out."""
    found = {"loss": _number(loss)}
    if not math.isnan(accuracy):
        found["accuracy"] = f"{100 * accuracy:.2f} %"
    found |= {name: f"{value:.4g}" for name, value in metrics.items() if isinstance(value, float)}
    return html_table(list(found), [list(found.values())])


def trainer_html(trainer: Trainer) -> str:
    """Return a trainer as HTML tables: network, optimizer and how far it is; and the epochs so far."""
    done = f"{len(trainer.history)} of {trainer.total_epochs}, {trainer.step:,} steps"
    about = [trainer.network.title, repr(trainer.optimizer), done]
    table = html_table(["network", "optimizer", "epochs"], [about])
    return table + (as_html(trainer.history, trainer.total_epochs) if trainer.history else "")


def html_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[bool] = (), caption: str = ""
) -> str:
    """Return an HTML table of texts, which are escaped; the rows whose entry of ``bold`` is True are bold."""
    lines = [f"<caption>{escape(caption)}</caption>"] if caption else []
    lines.append(f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in columns)}</tr>")
    for index, row in enumerate(rows):
        style = ' style="font-weight: bold"' if index < len(bold) and bold[index] else ""
        lines.append(f"<tr{style}>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"
