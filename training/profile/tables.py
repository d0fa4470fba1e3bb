"""Text in columns."""

from __future__ import annotations

from collections.abc import Sequence

from training.files.printable import printable


def column_widths(lines: Sequence[Sequence[str]]) -> list[int]:
    """The widest cell of each column; all lines have as many cells."""
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def aligned(lines: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """A text for each line, two blanks between columns: the first ``words`` start at their left edge, the others, which
    are numbers, end at their right one. Names may come from files: what a terminal would obey in them is escaped.
    """
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = column_widths(lines)
    return [
        "  ".join(
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
