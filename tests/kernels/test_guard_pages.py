"""C kernels touch no memory before or behind their arrays."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows protects pages by another call than mprotect"),
    pytest.mark.usefixtures("in_c"),
]


def run(what):
    command = [sys.executable, "-m", "tests.support.guard_pages", what]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("what", ["windows", "convolutions", "rows", "heads"])
def test_kernels_touch_their_arrays_alone(what):
    done = run(what)
    assert done.returncode == 0, done.stderr


def test_a_touch_behind_an_array_kills_the_process():
    assert -run("beyond").returncode in (signal.SIGSEGV, signal.SIGBUS)
