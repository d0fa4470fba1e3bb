"""The one process of a training without other ranks, in the place of ``Ranks``: it waits for nobody, without MPI."""

from __future__ import annotations

import socket
from typing import Any

import numpy

from backend import threads
from training.distributed.communicator import Ranks


class Alone(Ranks):
    """The only rank of a training.

    Examples:
        >>> from training.distributed.alone import Alone
        >>> Alone().gather("own")
        ['own']
    """

    def __init__(self) -> None:
        self.rank = self.local_rank = 0
        self.size = self.local_size = 1
        self.threads = threads.limit()
        self.host = socket.gethostname()
        self.has_ended = False

    def sum(self, array: numpy.ndarray, what: str) -> None:
        """Leave an array as it is."""

    def largest(self, number: int, what: str) -> int:
        """Return the number."""
        return number

    def gather(self, value: Any, what: str = "") -> list[Any]:
        """Return the value as the only one."""
        return [value]

    def signal_to_stop(self, received: int, is_last: bool) -> int:
        """Return the signal that this process has received, or 0."""
        return received
