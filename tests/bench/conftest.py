"""Run the bench in this process. It is not part of the installed packages."""

import contextlib
import io

import pytest

from tests.support.command_line import Result


@pytest.fixture
def bench():
    """Runs ``python -m bench``; an exception that it does not tell as an error comes through."""
    from bench.cli import main

    def run(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments], prog_name="python -m bench")
        return Result(end.value.code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def results():
    """Makes results in which PyTorch takes 100 ms for every workload, and xpnet so many times that."""

    def figures(ms):
        rest = {"samples": 20, "discarded": 0, "disturbed": False, "steps_in_a_sample": 1, "way": ""}
        return {"ms": ms, "quartiles_ms": [0.9 * ms, 1.1 * ms], **rest}

    def make(**ratios):
        steps = [
            {
                "workload": name,
                "title": name,
                "threads": 1,
                "sides": {"xpnet": figures(100 * ratio), "torch": figures(100.0)},
                "ratios": {"torch": ratio},
            }
            for name, ratio in ratios.items()
        ]
        return {"schema": 1, "machine": {}, "settings": {}, "steps": steps, "memory": [], "epochs": []}

    return make
