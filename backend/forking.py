"""Let a process fork while other threads run."""

from __future__ import annotations

import os
import threading


def lock_held_while_forking() -> threading.Lock:
    """Return a lock that no other thread holds when the process forks.

    Otherwise it would stay locked in the child, where that thread does not go on, and what it guards half changed.
    """
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
