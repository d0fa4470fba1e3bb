"""The console that rich draws on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 10_000
"""A width that no table has."""


def console_on(stream: TextIO, width: int | None = None) -> Console:
    """Return a console that writes colors and control characters on a terminal only, and never interprets text.

    Args:
        width: None means that of the terminal.
    """
    import rich.console

    class Plain(rich.console.Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False  # hidden, it would stay so where the program is killed

    return Plain(
        file=stream,
        width=width,
        force_terminal=stream.isatty(),
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
