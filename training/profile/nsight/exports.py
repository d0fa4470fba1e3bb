"""Tables that a profiler exports as CSV: found among its notices, with the unit of every column."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from fnmatch import fnmatchcase

from training.files import clipped
from training.profile.nsight.errors import ToolError

SCALES = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecond"), 1e-3),
    **dict.fromkeys(("us", "μs", "µs", "usec", "usecond"), 1e-6),  # Greek mu, and the micro sign
    **dict.fromkeys(("ns", "nsec", "nsecond"), 1e-9),
    **dict.fromkeys(("b", "byte", "bytes"), 1.0),
    # Factors of 1000: Nsight Compute scales its units so (documentation, "Metrics and Units").
    **dict.fromkeys(("kb", "kbyte"), 1e3),
    **dict.fromkeys(("mb", "mbyte"), 1e6),
    **dict.fromkeys(("gb", "gbyte"), 1e9),
    **dict.fromkeys(("tb", "tbyte"), 1e12),
    "%": 1.0,
}
"""Units in small letters, and what a number in them is in seconds, bytes or percent."""


class Table:
    """A table in the text of an export: cells by column, numbers in seconds, bytes or percent.

    The header is the first line with all needed columns; what stands before it are the tool's notices, and behind it
    lines that begin with ``==``. A unit stands in the header, ``Start (ns)`` (nsys), or in a line of its own below it,
    which has no value in the first needed column (ncu).

    Args:
        text: of the export.
        needed: names of columns, without units. ``*`` at the end stands for any continuation of a name.
        source: the file or command, for errors.

    Raises:
        ToolError: no line has all the columns, or a line has more or fewer cells than the header.
    """

    def __init__(self, text: str, needed: Sequence[str], source: str) -> None:
        self.source = source
        try:
            lines = list(csv.reader(text.splitlines()))
        except csv.Error as error:
            raise ToolError(f"{source} is no CSV: {error}") from error
        start = next((index for index, line in enumerate(lines) if None not in _columns(line, needed)), None)
        if start is None:
            widest = max(lines, key=len, default=[])
            missing = [name for name, place in zip(needed, _columns(widest, needed), strict=True) if place is None]
            has = (
                f"its columns are {', '.join(cell[:80] for cell in widest[:40])}"
                if len(widest) > 1
                else "it has no table"
            )
            raise ToolError(f"{source} lacks the column {', '.join(missing)}; {has}")
        header = lines[start]
        self._column = {
            name: place for name, place in zip(needed, _columns(header, needed), strict=True) if place is not None
        }
        self._units = [_split(cell)[1] for cell in header]
        self.rows = [line for line in lines[start + 1 :] if len(line) > 1 and not line[0].startswith("==")]
        for line in self.rows:
            if len(line) != len(header):
                raise ToolError(
                    f"{source} has a line of {len(line)} cells below a header of {len(header)}: {clipped(line)}"
                )
        if self.rows and not self.text(self.rows[0], needed[0]):
            self._units = self.rows.pop(0)

    def text(self, row: Sequence[str], column: str) -> str:
        """A cell."""
        return row[self._column[column]].strip()

    def number(self, row: Sequence[str], column: str) -> float:
        """A cell's number in seconds, bytes or percent.

        Raises:
            ToolError: the cell has no number, or its unit is none that is known.
        """
        number = self.number_if_any(row, column)
        if number is None:
            raise ToolError(
                f"{self.source} has {clipped(self.text(row, column))} in the column {column}; a number is needed"
            )
        return number

    def number_if_any(self, row: Sequence[str], column: str) -> float | None:
        """The same, and None where the tool has no number ("", "n/a", "None")."""
        cell = self.text(row, column).replace(",", "")
        if cell.lower() in ("", "n/a", "none", "nan"):
            return None
        unit = self._units[self._column[column]].strip()
        if unit.lower() not in SCALES:
            raise ToolError(f"{self.source} has {column} in {unit or 'no unit'}; needed are s, ns, byte, Kbyte, %, …")
        try:
            return float(cell) * SCALES[unit.lower()]
        except ValueError:
            raise ToolError(f"{self.source} has {clipped(cell)} in the column {column}; a number is needed") from None


def _split(cell: str) -> tuple[str, str]:
    """Name and unit of a header's cell."""
    name, _, unit = cell.strip().rpartition("(")
    unit, closing = unit[:-1], unit[-1:]
    if name and closing == ")" and unit and not any(character.isspace() or character == ")" for character in unit):
        return name.strip(), unit
    return cell.strip(), ""


def _columns(line: Sequence[str], needed: Sequence[str]) -> list[int | None]:
    """The place of each needed column in a header, or None."""
    names = [_split(cell)[0] for cell in line]
    return [next((index for index, name in enumerate(names) if fnmatchcase(name, pattern)), None) for pattern in needed]
