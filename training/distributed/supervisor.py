"""Watch over the process of a rank, so that its end is told, whatever ends it.

A process that is killed, by the kernel where memory is exhausted, say, cannot tell so; and a launcher may only give a
number. So the process that a launcher has started forks: the child trains, and the parent waits and tells.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any

from training.distributed.launch import Launched

_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
READ = 0.3
"""Seconds in which the launcher reads what was told, before this rank's end lets it end all and drop the rest."""

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def watch(place: Launched) -> None:
    """Return in a child of this process; the parent ends as the child does, and tells if a signal has killed it.

    Signals are passed on to the child, which dies where the parent does. Call it before there are threads.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # what a terminal or launcher sends to the group comes once, through the parent
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        return

    def pass_on(number: int, frame: Any) -> None:
        os.kill(child, number)

    for name in _FORWARDED:
        if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), pass_on)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        _tell(place, -code)
        code = 128 - code
    os._exit(code)


def _tell(place: Launched, number: int) -> None:
    """Say that a signal has killed this rank."""
    name = signal.Signals(number).name
    why = ", as the kernel does where memory is exhausted" if number == signal.SIGKILL else ""
    text = (
        f"Error: rank {place.rank} of {place.size} was killed by {name}{why}; all ranks end, and the last checkpoint "
        "is whole: go on with xpnet train --resume\n"
    )
    os.write(2, text.encode())
    time.sleep(READ)
