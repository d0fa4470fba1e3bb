"""Text in columns."""

from __future__ import annotations

from collections.abc import Sequence

from training.files.printable import printable


def column_widths(lines: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column; all lines must have the same number of cells."""
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def aligned(lines: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Return a text for each line, with two blanks between columns: the first ``words`` columns are aligned left, the
    others, numbers, right. Names may come from files: control characters in them are escaped.
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
