"""The ``xpnet`` command. A command's module is imported when it is run or listed, and imports what is heavy inside."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import click

from training.command import program
from training.files.printable import one_line

__all__ = ["COMMANDS", "Commands", "main", "program"]

COMMANDS = ("train", "evaluate", "predict", "summary", "profile", "devices", "check", "kernels")
"""Each is the function ``command`` of the module of its name, in the order of the help."""


class Commands(click.Group):
    """The commands; errors of the user in one line, and the exit codes of this program.

    0: done. 1: training failed, or nothing can be written. 2: the user has something to mend. 130, 143, 129: ended by
    Ctrl-C, SIGTERM, SIGHUP.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"training.cli.{cmd_name}").command

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        def run() -> Any:
            return super(Commands, self).main(args, prog_name, complete_var, standalone_mode=False, **extra)

        if not standalone_mode:
            return run()
        from training.cli import streams
        from training.loop.stopping import signals_interrupt

        streams.fill_closed()
        _do_without_threads()
        try:
            with signals_interrupt():
                code = _exit_code(run)
        except KeyboardInterrupt as stop:  # just before the command, or just behind it
            code = _interrupted(stop)
        sys.exit(code)


def _do_without_threads() -> None:
    """Keeps OpenBLAS from starting threads where there are none to be had: it would end the process as it is loaded."""
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    else:
        thread.join()


def _exit_code(run: Callable[[], Any]) -> int:
    """Runs a command, and tells in one line why it failed if it did."""
    from training.cli import streams
    from training.cli.common import failure
    from training.files.durable import is_disk_full

    unwritten: Any
    try:
        code = run()  # ends quietly where a pipe is broken
    except click.Abort as abort:
        return _interrupted(abort.__cause__)
    except click.ClickException as error:
        _say(f"Error: {one_line(error.format_message())}")  # its own `show` would add the usage
        return error.exit_code
    except (OSError, MemoryError) as error:  # a disk or a memory that is full, a file that may not be read
        if not (is_disk_full(error) and error.filename is None):  # type: ignore[union-attr]
            said = failure(error)
            _say(f"Error: {one_line(said.format_message())}")
            return said.exit_code
        unwritten = error  # every file is named: this is what was to be printed
        streams.silence(sys.stdout)
    except RuntimeError as error:  # Python before 3.12 makes one of an interrupt inside of a __set_name__
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        return _interrupted(error.__cause__)
    else:
        unwritten = streams.drain()
    if unwritten is not None:
        if unwritten.errno != errno.EPIPE:
            _say(f"Error: standard output: {unwritten.strerror}")
        return 1
    return code if isinstance(code, int) else 0


def _interrupted(stop: BaseException | None) -> int:
    """Says that a command was interrupted where it has not said so itself; returns the exit code."""
    name = getattr(stop, "name", "")
    _say(f"Interrupted by {name}." if name else "Interrupted.")
    return getattr(stop, "exit_code", 130)


def _say(text: str) -> None:
    """Prints on standard error, if that takes it."""
    from training.cli import streams

    with streams.going_on_silently():
        click.echo(text, err=True)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
)
@click.version_option(package_name="xpnet", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Train convolutional networks on the CPU or a CUDA GPU, and use them."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
