"""Text in columns."""

from __future__ import annotations

from collections.abc import Sequence


def column_widths(lines: Sequence[Sequence[str]]) -> list[int]:
    """The widest cell of each column; all lines have as many cells."""
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def aligned(lines: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """A text for each line, two blanks between columns: the first ``words`` start at their left edge, the others, which
    are numbers, end at their right one.
    """
    widths = column_widths(lines)
    return [
        "  ".join(
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
