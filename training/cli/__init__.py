"""The ``xpnet`` command. The module of a command is imported when it runs, so that ``xpnet --help`` is fast."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import click

from training.cli import streams
from training.cli.nearest import nearest
from training.distributed.launch import launched
from training.files.printable import one_line

__all__ = ["COMMANDS", "Commands", "main"]

COMMANDS = {
    "train": "Train a model and keep settings, metrics, the best model and figures in a folder.",
    "sweep": "Search for the settings of a training by many runs.",
    "evaluate": "Measure a model on test data: loss, accuracy, and each class.",
    "predict": "Classify image files: PNG, JPEG, BMP, GIF, WebP and TIFF, of any size.",
    "report": "Describe a run in one HTML page: curves, classes, mistakes, settings, machine.",
    "export": "Write a trained model in the format of other programs: ONNX.",
    "summary": "List a model's layers and the cost of a training step.",
    "profile": "Profile training steps, by layer and phase; the trained model is not kept.",
    "devices": "Show the CPU, its BLAS, the GPUs, MPI and NCCL, and what is missing with the remedy.",
    "check": "Compare a GPU with the CPU: every operation, and training steps.",
    "kernels": "List the CUDA kernels and what they use; --build compiles them.",
}
"""The commands in the order of the help, with their short help; the module of each has a function ``command``."""


class Commands(click.Group):
    """A group that imports a command's module when the command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"training.cli.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing and not args[0].startswith("-"):
            near = nearest(args[0], COMMANDS)
            remedy = f"did you mean {near}?" if near else "xpnet --help lists the commands"
            raise click.UsageError(f"No such command {args[0]!r}: {remedy}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


_COMPLETION = """The Tab key completes commands and options after this line in ~/.bashrc (in ~/.zshrc with zsh_source;
for fish: _XPNET_COMPLETE=fish_source xpnet | source):

\b
  eval "$(_XPNET_COMPLETE=bash_source xpnet)"
"""


@click.group(
    cls=Commands,
    epilog=_COMPLETION,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
)
@click.version_option(package_name="xpnet", message="%(prog)s %(version)s")
@click.pass_context
def group(context: click.Context) -> None:
    """Train convolutional networks on the CPU or a CUDA GPU, and use them."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: errors of the user in one line, and the exit codes of this program.

    0: done. 1: training failed, or nothing can be written. 2: the user has something to correct. 130, 143, 129: ended
    by Ctrl-C, SIGTERM, SIGHUP.
    """
    from training.loop.stopping import signals_interrupt

    streams.fill_closed()
    streams.escape_unencodable()
    _do_without_threads()
    try:
        with signals_interrupt():
            code = _exit_code(lambda: group.main(arguments, prog_name="xpnet", standalone_mode=False))
    except KeyboardInterrupt as stop:  # just before the command, or just after it
        code = _interrupted(stop)
    except Exception as error:
        if launched() is None:
            raise
        traceback.print_exc()
        _say(f"Error: {type(error).__name__}: {one_line(str(error))}")
        code = 1
    if launched() is not None:
        from training.cli.ranks import leave

        leave(code)
    sys.exit(code)


def _do_without_threads() -> None:
    """Keep OpenBLAS from starting threads where none can be started: it would end the process as it is loaded."""
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    else:
        thread.join()


def _exit_code(run: Callable[[], Any]) -> int:
    """Run a command and return its exit code; an error is printed in one line."""
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
            from training.cli.common import failure

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
    """Print that a command was interrupted, where it has not done so itself; return the exit code.

    Among ranks only rank 0 does: a launcher interrupts all of them, also where one has failed and told why.
    """
    name, place = getattr(stop, "name", ""), launched()
    if place is None or place.rank == 0:
        with streams.going_on_silently():
            click.echo(f"Interrupted by {name}." if name else "Interrupted.", err=True)
    return getattr(stop, "exit_code", 130)


def _say(text: str) -> None:
    """Print on standard error, if that can be written to."""
    if launched() is not None:
        from training.cli.ranks import tell

        text = tell(text)
    with streams.going_on_silently():
        click.echo(text, err=True)
