"""The ``xpnet`` command. A command's module is imported when it is run or listed, and imports what is heavy inside."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from training.console import printable

COMMANDS = ("train", "evaluate", "predict", "summary", "profile", "devices", "check", "kernels")
"""Each is the function ``command`` of the module of its name, in the order of the help."""


class Commands(click.Group):
    """The commands; errors of the user in one line, and the exit codes of this program.

    0: done. 1: training failed. 2: the user has something to mend. 130: interrupted by Ctrl-C.
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
        from training.cli.common import UserError, in_words

        try:
            code = run()  # ends quietly where a pipe is broken
        except click.Abort:
            click.echo("Interrupted.", err=True)
            sys.exit(130)
        except click.ClickException as error:
            message = printable(error.format_message(), keep="\n")
            click.echo(f"Error: {message}", err=True)  # its own `show` would add the usage
            sys.exit(error.exit_code)
        except (OSError, MemoryError) as error:  # a disk or a memory that is full, a file that may not be read
            UserError(in_words(error)).show()
            sys.exit(UserError.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


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
