"""End all ranks where a program does not handle an exception of one of them.

Python would end this rank alone, or not even it: as MPI ends, it waits for the others, who wait for this one's
gradients.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.distributed.communicator import Ranks

TURN = 0.4
"""Seconds that each rank waits longer than the one before it to tell of an error: the first one ends all others."""

LATEST = 15
"""The rank from which on all tell at once."""

READ = 0.3
"""Seconds in which the launcher reads what was told: some of them drop what they have not read where a rank ends."""


def end_all_where_uncaught(ranks: Ranks) -> None:
    """Let ``sys.excepthook`` tell of an exception and then end all ranks. Rank 0 tells first, and ends the others."""
    tell = sys.excepthook

    def end_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        time.sleep(TURN * min(ranks.rank, LATEST))
        tell(kind, error, trace)
        print(f"Error: rank {ranks.rank} of {ranks.size}: {kind.__name__}; all ranks end", file=sys.stderr, flush=True)
        time.sleep(READ)
        ranks.abort(130 if kind is KeyboardInterrupt else 1)

    sys.excepthook = end_all
