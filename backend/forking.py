"""Let a process fork while other threads run."""

from __future__ import annotations

import os
from typing import Any, TypeVar

L = TypeVar("L", bound=Any)


def held_while_forking(lock: L) -> L:
    """Return a lock as one that no other thread holds when the process forks.

    Otherwise it would stay locked in the child, where that thread does not go on, and what it guards half changed.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
