"""Progress bars: by rich on a terminal, by tqdm in a notebook, and none elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from training.terminal.console import console_on

if TYPE_CHECKING:
    from rich.console import Console

REFRESH_SECONDS = 0.1
_ALL_FITS = 80
"""The least width of a terminal for a bar, rate and time left beside the text and the percentage."""

_Derived = TypeVar("_Derived", bound="Bar")


class Bar:
    """A progress bar that shows nothing. Use it in a ``with``, which removes it at the end."""

    def update(self, done: float, text: str | None = None, rate: str = "", total: float | None = None) -> None:
        """Show how much is done, if that has not just been shown.

        Args:
            text: what stands before the bar; None leaves it as it was.
            rate: what stands after it.
            total: how much there is to be done; None leaves it as it was.
        """

    def hide(self) -> None:
        """Remove the bar until the next update, so that lines can be printed."""

    def close(self) -> None:
        """Remove the bar."""

    def __enter__(self: _Derived) -> _Derived:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def bar(
    text: str,
    total: float | None = None,
    *,
    unit: str = "",
    done: float = 0,
    interval: float = REFRESH_SECONDS,
    file: TextIO | None = None,
) -> Bar:
    """Return a progress bar for where this program runs.

    Args:
        text: what stands before it.
        total: how much there is to be done; None if that is not known.
        unit: what is counted; "B" for bytes.
        done: where it begins.
        interval: the least seconds between two updates.
        file: a stream to draw on; None means standard error, or the notebook's cell.
    """
    if file is None and in_notebook():
        return _NotebookBar(text, total, unit, done, interval)
    file = file or sys.stderr
    if not is_terminal(file):
        return Bar()
    console = console_on(file)
    return Bar() if console.is_dumb_terminal else _TerminalBar(text, total, unit, done, interval, console)


def in_notebook() -> bool:
    """Return True in a program that a notebook runs."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def is_terminal(stream: TextIO | None) -> bool:
    """Return True for a stream whose text a terminal shows."""
    return stream is not None and not stream.closed and stream.isatty()


class _DrawnBar(Bar):
    """A bar that is drawn, at most once in ``interval`` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = 0.0

    def update(self, done: float, text: str | None = None, rate: str = "", total: float | None = None) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._interval
            self._draw(done, text, rate, total)

    def _draw(self, done: float, text: str | None, rate: str, total: float | None) -> None:
        raise NotImplementedError


class _TerminalBar(_DrawnBar):
    """A bar by rich that is drawn at updates only: no thread is started."""

    def __init__(
        self, text: str, total: float | None, unit: str, done: float, interval: float, console: Console
    ) -> None:
        super().__init__(interval)
        from rich import progress
        from rich.table import Column

        columns: list[progress.ProgressColumn]
        if console.width < _ALL_FITS:
            shown = "{task.description}" if total is None else "{task.percentage:>3.0f}%  {task.description}"
            cut = Column(no_wrap=True, overflow="crop")
            columns = [progress.TextColumn(shown, markup=False, table_column=cut)]
        else:
            columns = [
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(24),
                progress.TaskProgressColumn("{task.percentage:>3.0f}%", markup=False),
                progress.TextColumn("{task.fields[rate]}", markup=False),
                progress.TimeRemainingColumn(compact=True),
            ]
        if unit == "B" and console.width >= _ALL_FITS:
            columns[3:4] = [progress.DownloadColumn(), progress.TransferSpeedColumn()]
        self._progress = progress.Progress(
            *columns,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task(text, total=total, completed=int(done), rate="")
        self.update(done)

    def _draw(self, done: float, text: str | None, rate: str, total: float | None) -> None:
        self._progress.update(self._task, completed=done, description=text, rate=rate, total=total)
        self._progress.start()
        self._progress.refresh()

    def hide(self) -> None:
        self._progress.stop()

    def close(self) -> None:
        self._progress.stop()


class _NotebookBar(_DrawnBar):
    """A bar by tqdm: a widget where ipywidgets is installed, else text."""

    def __init__(self, text: str, total: float | None, unit: str, done: float, interval: float) -> None:
        import warnings

        super().__init__(interval)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a widget would be nicer
            from tqdm.auto import tqdm

            self._bar: Any = tqdm(
                desc=text, total=total, unit=unit and f" {unit}", unit_scale=unit == "B", initial=done, leave=False,
                mininterval=0,
            )  # fmt: skip

    def _draw(self, done: float, text: str | None, rate: str, total: float | None) -> None:
        if total is not None:
            self._bar.total = total
        if text is not None:
            self._bar.set_description_str(text, refresh=False)
        self._bar.n = done
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()
