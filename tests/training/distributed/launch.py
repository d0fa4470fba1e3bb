"""Start programs of the tests with mpirun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.ranks.launch import environment, mpirun

HERE = Path(__file__).parent
PROGRAM = "tests.training.distributed.program"
LIMIT = 100
"""Seconds that a program may take: none of them waits for another rank for more than ``PATIENCE``."""

PATIENCE = 60


def started(ranks, *arguments, cwd=None, module=PROGRAM, **variables):
    """Start a module in so many processes, of one thread each, on the CPU."""
    pytest.importorskip("mpi4py", reason="needs mpi4py and an MPI: pip install 'xpnet[test]'")
    root = HERE.parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])  # the emulated device's, too
    own = {"XPNET_DEVICE": "cpu", "XPNET_THREADS": "1", "XPNET_RANKS_TIMEOUT": str(PATIENCE), "PYTHONPATH": path}
    command = mpirun(ranks, module, *map(str, arguments))
    return subprocess.Popen(
        command,
        cwd=cwd or root,
        env={**environment(ranks), **own, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    """Return the exit code, standard output and standard error of what was started."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def results_of(ranks, *arguments, **options):
    """Return what rank 0 of the program printed."""
    code, out, err = finished(started(ranks, *arguments, **options))
    assert code == 0, f"{sys.executable}: {out}{err}"
    return json.loads(out.splitlines()[-1])
