"""Watch over the process of a rank, so that its end is told, whatever ends it.

A process that is killed, by the kernel where memory is exhausted, say, cannot tell so; and a launcher may only give a
number. So the process that a launcher has started forks: the child trains, and the parent waits and tells. It also
ends the training where the launcher itself is killed: some of them leave their processes behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any

from training.distributed.ending import READ
from training.distributed.launch import Launched

_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
LOOK = 0.1
"""Seconds between two looks whether the child or the launcher has ended."""

GRACE = 8.0
"""Seconds in which a rank without a launcher ends by itself and is saved, before it is killed."""

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def watch(place: Launched) -> None:
    """Return in a child of this process; the parent ends as the child does, and tells if a signal has killed it.

    Signals are passed on to the child, which dies where the parent does, and gets SIGTERM where the launcher has died.
    Call it before there are threads.
    """
    parent, launcher = os.getpid(), os.getppid()
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
    code = os.waitstatus_to_exitcode(_ended(child, launcher))
    if code < 0:
        _tell(place, -code)
        code = 128 - code
    os._exit(code)


def _ended(child: int, launcher: int) -> int:
    """Return the status of the child when it has ended; end it where the launcher is no longer this one's parent."""
    alone_since: float | None = None
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        if os.getppid() != launcher:
            now = time.monotonic()
            if alone_since is None:
                alone_since = now
                os.kill(child, signal.SIGTERM)
            elif now - alone_since > GRACE:
                os.kill(child, signal.SIGKILL)
        time.sleep(LOOK)


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
