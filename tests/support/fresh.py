"""A fresh Python, for what only a process of its own can show: imports, environment variables, first uses."""

import os
import subprocess
import sys
from pathlib import Path


def fresh(code, *, fails=False, **environment):
    """Run ``code`` in a new interpreter with warnings as errors; return what it printed.

    Args:
        code: a program.
        fails: whether it is to end with an error; then its standard error is returned.
        environment: variables to set, or to remove where the value is None.

    """
    variables = {**os.environ, **{name: value for name, value in environment.items() if value is not None}}
    for name, value in environment.items():
        if value is None:
            variables.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=variables, capture_output=True, text=True, timeout=120
    )
    if fails:
        assert done.returncode != 0, f"expected an error, got {done.stdout}"
        return done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def counted(module, *arguments):
    """What a module of this folder prints as a program on the emulated CUDA device, which counts memory accesses."""
    code = f"import runpy, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); sys.argv[1:] = {list(arguments)!r}"
    program = f"{code}; runpy.run_module({module!r}, run_name='__main__')"
    return fresh(program, CUDA_ON_CPU_COUNT="1", CUDA_ON_CPU_CHECK=None, CUDA_ON_CPU_REPORT=None, XPNET_DEVICE="cpu")
