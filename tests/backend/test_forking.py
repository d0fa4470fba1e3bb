"""Locks in a process that is forked while another thread holds them."""

import os

import pytest

from tests.support.fresh import fresh

HELD = """
import os, threading, time
from backend import profiling, random, threads, workspace
from kernels.core import pool
held = threading.Event()
def hold():
    with LOCK:
        held.set()
        time.sleep(0.3)
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if not child:
    os._exit(0 if LOCK.acquire(timeout=20) else 7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), LOCK.acquire(timeout=20))
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    "lock",
    [
        "workspace._lock",
        "random._moving",
        "profiling._lock",
        "threads._start_lock",
        "threads._blas_lock",
        "pool._start_lock",
    ],
)
def test_a_child_can_take_a_lock_that_another_thread_held(lock):
    program = "import warnings; warnings.simplefilter('ignore')\n" + HELD.replace("LOCK", lock)  # Python's, of threads
    assert fresh(program, XPNET_DEVICE="cpu") == "0 True"
