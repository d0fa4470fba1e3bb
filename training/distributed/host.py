"""Sums over the ranks by MPI: of arrays on the host, and of arrays on a GPU by way of the host."""

from __future__ import annotations

from typing import Any

import numpy

from backend import HostCopy, copy_to_host
from training.distributed.communicator import Ranks


class HostSums:
    """Sums of host arrays, by MPI."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._requests: list[Any] = []

    def start(self, array: numpy.ndarray) -> None:
        """Start to sum a contiguous array over the ranks, in place."""
        self._requests.append(self._ranks.start_sum(array, array.dtype == numpy.float16))

    def progress(self) -> None:
        """Let MPI work on what was started: it does so only where it is called."""
        if self._requests:
            self._ranks.test(self._requests)

    def wait(self) -> None:
        """Wait for all that was started."""
        requests, self._requests = self._requests, []
        self._ranks.wait(requests, "summed gradients")


class SumsOverHost:
    """Sums of device arrays where there is no NCCL: copied to pinned host memory, summed there by MPI, and copied back.

    The host waits for the device, so that a step cannot be captured as a graph.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._sums = HostSums(ranks)
        self._coming: list[tuple[Any, HostCopy]] = []
        self._summed: list[tuple[Any, numpy.ndarray]] = []
        self._going: list[tuple[Any, numpy.ndarray]] = []

    def start(self, array: Any) -> None:
        """Start to sum a contiguous array over the ranks, in place, once the current stream has computed it."""
        self._coming.append((array, copy_to_host(array)))

    def progress(self) -> None:
        """Begin with the arrays that have come, and let MPI work."""
        while self._coming and self._coming[0][1].done:  # in order: it must be the same on all ranks
            self._begin()
        self._sums.progress()

    def wait(self) -> None:
        """Wait for all that was started; the current stream then copies the sums to the device."""
        while self._coming:
            self._begin()
        self._sums.wait()
        for array, host in self._summed:
            array.set(host)
        # Kept until the next sums have come, which the stream copies after these have gone.
        self._going, self._summed = self._summed, []

    def _begin(self) -> None:
        array, copy = self._coming.pop(0)
        self._summed.append((array, copy.get()))
        self._sums.start(self._summed[-1][1])
