"""Count what the steps of the epoch under way have added up, and the time that it has taken."""

from __future__ import annotations

import time
from typing import Any

import numpy

from backend import asnumpy
from backend.types import Array


class EpochSoFar:
    """The epoch under way. Time is counted inside ``with`` blocks only: an interrupted epoch goes on counting.

    Args:
        library: ``numpy`` or ``cupy``, of the totals.

    Attributes:
        totals: sum of losses, correct samples and samples so far: float64 (3,), on the device. Steps and pixels count
            as samples.
        batches: number of batches that are done.
        skipped_before: steps that a loss scale skipped before this epoch.
    """

    def __init__(self, library: Any) -> None:
        self.totals: Array = library.zeros(3, "float64")
        self._start: float | None = None
        self.resume(0, 0.0, 0)

    def begin(self, skipped_before: int) -> None:
        """Count from 0 on."""
        self.resume(0, 0.0, skipped_before)
        self.totals[...] = 0

    def resume(self, batches: int, seconds: float, skipped_before: int) -> None:
        """Count from these numbers on. The totals are left as they are."""
        self.batches, self.skipped_before = batches, skipped_before
        self._before = seconds
        self._start = None if self._start is None else time.perf_counter()

    @property
    def seconds(self) -> float:
        """The seconds so far, of a block that has not ended, too."""
        return self._before + (0.0 if self._start is None else time.perf_counter() - self._start)

    def figures(self, images: int | None = None) -> dict[str, float]:
        """Return mean loss, accuracy and images per second, as ``EpochResult`` calls them. Waits for the device.

        Args:
            images: how many there were, where the totals are of their steps or pixels; None for as many as samples.
        """
        loss, correct, samples = asnumpy(self.totals)
        rate = float((samples if images is None else images) / self.seconds)
        samples = samples or numpy.nan  # 0 where no sample counts
        return {"loss": float(loss / samples), "accuracy": float(correct / samples), "images_per_second": rate}

    def __enter__(self) -> EpochSoFar:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._before, self._start = self.seconds, None
