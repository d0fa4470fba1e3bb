"""The ``xpnet`` command in this process."""

import contextlib
import io
from dataclasses import dataclass

import pytest

from training.cli import main

QUICK = ["--model", "twolayernet", "--batch-size", "50", "--lr", "0.003"]
"""Options of a training that takes a tenth of a second an epoch."""


@dataclass
class Result:
    code: int
    out: str
    err: str


def xpnet(*arguments):
    """Runs the command as its script does; an exception that it does not tell as an error comes through."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments], prog_name="xpnet")
    return Result(end.value.code, out.getvalue(), err.getvalue())
