"""Run the ``xpnet`` command in this process."""

import contextlib
import io
from dataclasses import dataclass

import click
import pytest

from training.cli import main

QUICK = ["--model", "twolayernet", "--batch-size", "50", "--lr", "0.003"]
"""Options of a training that takes a tenth of a second an epoch."""


@dataclass
class Result:
    code: int | str | None
    out: str
    err: str


def xpnet(*arguments):
    """Run the command as its script does; an exception that it does not report as an error is raised."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return Result(end.value.code, out.getvalue(), err.getvalue())


OUT_OF_ALL_BOUNDS = ["1" + "0" * 40, "-1" + "0" * 40, "1e400", "nan", "-nan", "inf", "1" * 5000, ""]


def number_options(command, *names):
    """Return every option of a command and its subcommands that takes a number, as parameters of a test."""
    takes = (type(click.INT), type(click.FLOAT))  # and the ranges derived from them
    found = [
        pytest.param(option, id=" ".join((*names, option.opts[-1])))
        for option in command.params
        if isinstance(option.type, takes)
    ]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found += number_options(command.get_command(context, name), *names, name)
    return found
