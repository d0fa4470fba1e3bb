"""End all ranks with one message: that of the first rank that has a reason."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.distributed.communicator import Ranks

READ = 0.3
"""Seconds in which the launcher reads what was told: some of them drop what they have not read where a rank ends."""

_TURN = 0.4
"""Seconds that each rank waits longer than the one before it to tell of an error: the first one ends all others."""

_LATEST = 15
"""The rank from which on all tell at once."""


def wait_for_turn(rank: int) -> None:
    """Wait until this rank may tell of an error: one before it that tells it too has then ended all."""
    time.sleep(_TURN * min(rank, _LATEST))


def end_all(ranks: Ranks, reason: str, code: int) -> None:
    """Tell the reason, and end all ranks with an exit code."""
    print(f"Error: rank {ranks.rank} of {ranks.size}: {reason}; all ranks end", file=sys.stderr, flush=True)
    time.sleep(READ)
    ranks.abort(code)
