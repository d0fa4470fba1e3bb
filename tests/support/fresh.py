"""Run code in a new Python process: to test imports, environment variables and first uses."""

import os
import subprocess
import sys
from pathlib import Path


def fresh(code, *, fails=False, **environment):
    """Run ``code`` in a new interpreter with warnings as errors; return what it printed.

    Args:
        code: a program.
        fails: expect it to end with an error, and return its standard error.
        environment: variables to set, or to remove if the value is None.

    """
    variables = {**os.environ, **{name: value for name, value in environment.items() if value is not None}}
    for name, value in environment.items():
        if value is None:
            variables.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=variables, capture_output=True, text=True, timeout=300
    )
    if fails:
        assert done.returncode != 0, f"expected an error, got {done.stdout}"
        return done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def counted(module, *arguments):
    """Run a module of this folder as a program on the emulated CUDA device in COUNT mode; return its output."""
    code = f"import runpy, sys; sys.path.append({str(Path(__file__).parents[2])!r}); sys.argv[1:] = {list(arguments)!r}"
    program = f"{code}; runpy.run_module('tests.support.{module}', run_name='__main__')"
    return fresh(program, CUDA_ON_CPU_COUNT="1", CUDA_ON_CPU_CHECK=None, CUDA_ON_CPU_REPORT=None, XPNET_DEVICE="cpu")
