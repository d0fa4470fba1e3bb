"""Text in columns."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from training.files.printable import printable
from training.terminal.console import WIDE, console_on

if TYPE_CHECKING:
    from rich.table import Table


def table(rows: Iterable[Sequence[str]], words: int = 1) -> Table:
    """Return a table whose first row has the heads: the first ``words`` columns are aligned left, the others, numbers,
    right. Names may come from files: control characters in them are escaped.
    """
    from rich.text import Text

    heads, *lines = rows
    made = _empty()
    for place, head in enumerate(heads):
        made.add_column(head, justify="left" if place < words else "right", vertical="bottom", no_wrap=True)
    for line in lines:
        made.add_row(*(Text(printable(cell)) for cell in line))
    return made


def table_row(cells: Mapping[str, str], widths: Mapping[str, int], has_heads: bool, mark: str = "") -> Table:
    """Return one row of a table that grows, with the texts by column, aligned right.

    Args:
        widths: the columns' least widths.
        has_heads: put the columns' names above.
        mark: what stands at the end; the row is then bold.
    """
    made = _empty()
    made.show_header = has_heads
    for name in cells:
        made.add_column(name, justify="right", min_width=widths[name], no_wrap=True)
    made.add_column("", no_wrap=True)
    made.add_row(*cells.values(), mark, style="bold" if mark else None)
    return made


def show(made: Table, stream: TextIO | None = None) -> None:
    """Print a table, whole, on standard output or another stream."""
    stream = stream or sys.stdout
    if stream.isatty():
        console_on(stream, WIDE).print(made)
    else:
        stream.writelines(f"{line}\n" for line in as_lines(made))


def as_lines(made: Table) -> list[str]:
    """Return a table as lines of plain text, without blanks at their ends."""
    text = io.StringIO()
    console_on(text, WIDE).print(made)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def aligned(rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """Return a ``table`` as lines."""
    return as_lines(table(rows, words))


def _empty() -> Table:
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 1))
