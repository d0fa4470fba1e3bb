"""End all ranks where a GPU waits for another rank without end, as NCCL does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from training.distributed.communicator import Ranks
from training.distributed.ending import end_all, wait_for_turn

LOOK = 0.2
"""Seconds between two looks at when this rank last went on: less than the ranks wait for each other's answer."""


@contextmanager
def ending_where_stuck(ranks: Ranks) -> Iterator[None]:
    """End all ranks where this one does not wait for the others by MPI for its ``patience`` inside the ``with``.

    Its host then waits for the GPU, and the GPU for a rank that does not come: no exception can be raised.
    """
    is_over = threading.Event()
    ranks.latest_wait = time.monotonic()

    def watch() -> None:
        while not is_over.wait(LOOK):
            if time.monotonic() - ranks.latest_wait > ranks.patience:
                break
        else:
            return
        wait_for_turn(ranks.rank)
        # The thread that trains is not inside of MPI: it would have gone on, or raised an error.
        who = ranks.who_is_missing()
        if not is_over.is_set():
            end_all(ranks, f"{who} for {ranks.patience:g} s, as the GPUs summed gradients", 1)

    threading.Thread(target=watch, name="xpnet-ranks", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
