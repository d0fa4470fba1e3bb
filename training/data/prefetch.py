"""Gather blocks of samples on a thread, and copy them to the device, ahead of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import islice

import numpy as np

from backend import Device, current_device
from backend.transfer import DeviceCopy, copy_to_device
from training.data.background import Background

HostBatch = tuple[np.ndarray, np.ndarray]


class Prefetch:
    """Yields the arrays (x, t) of blocks on the device that is active now; the thread ends with the ``with``.

    Args:
        due: the indices of the samples of each block.
        allocate: returns pinned arrays for so many samples.
        load: fills them with the samples at these indices, for a device; called on the thread.
        blocks: number of blocks that are gathered ahead.

    Raises:
        RuntimeError: another device is active when a block is copied or taken.
    """

    def __init__(
        self,
        due: Iterator[np.ndarray],
        allocate: Callable[[int], HostBatch],
        load: Callable[[np.ndarray, np.ndarray, np.ndarray, Device], HostBatch],
        blocks: int,
    ) -> None:
        self._due, self._allocate, self._load = due, allocate, load
        self._device, self._thread = current_device(), Background("xpnet-loader")
        self._gathering: deque[Future[HostBatch]] = deque()
        self._copying: deque[DeviceCopy] = deque()
        self._blocks = blocks

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *exc_info: object) -> None:  # also if the consumer stops early
        self._thread.close()

    def __iter__(self) -> Iterator[HostBatch]:
        self._gather(self._blocks)
        while self._gathering or self._copying:
            if not self._copying:
                self._copy()
            self._check_device()
            x, t = self._copying.popleft().get()
            self._gather(1)
            yield x, t

    def copy_what_is_loaded(self) -> None:
        """Start the copies of blocks that are gathered; an exception of the thread is raised when its block is due."""
        while self._gathering and self._gathering[0].done() and self._gathering[0].exception() is None:
            self._copy()

    def _gather(self, blocks: int) -> None:
        for indices in islice(self._due, blocks):
            arrays = self._allocate(len(indices))
            self._gathering.append(self._thread.submit(self._load, indices, *arrays, self._device))

    def _copy(self) -> None:  # in the consumer's thread: the current device and stream are per thread
        self._check_device()
        self._copying.append(copy_to_device(*self._gathering.popleft().result()))

    def _check_device(self) -> None:
        if current_device() != self._device:
            raise RuntimeError(
                f"batches for {self._device} are taken while {current_device()} is active: change the device before an "
                "epoch of batches is started, or after it"
            )
