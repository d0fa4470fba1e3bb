"""End all ranks where a program does not handle an exception of one of them.

Python would end this rank alone, or not even it: as MPI ends, it waits for the others, who wait for this one's
gradients.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from training.distributed.ending import end_all, wait_for_turn

if TYPE_CHECKING:
    from training.distributed.communicator import Ranks


def end_all_where_uncaught(ranks: Ranks) -> None:
    """Let ``sys.excepthook`` tell of an exception and then end all ranks. Rank 0 tells first, and ends the others."""
    tell = sys.excepthook

    def handle(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        wait_for_turn(ranks.rank)
        tell(kind, error, trace)
        end_all(ranks, kind.__name__, 130 if kind is KeyboardInterrupt else 1)

    sys.excepthook = handle
