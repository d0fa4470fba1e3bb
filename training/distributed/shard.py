"""A rank's share of the batches of a loader: its own rows of every batch. The shares are disjoint and complete."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import numpy

from training.data.augment import CutMix, Mixup
from training.data.batches import Batches, checksum
from training.data.blocks import Batch
from training.data.loader import Loader
from training.data.rows import Rows


class Shard(Loader):
    """A rank's rows of the batches of another loader, in the same order of samples.

    It gathers only these samples. Where that cannot be, since a change of the samples mixes neighbors or the batches
    come from elsewhere, it makes each whole batch and takes its rows.

    Args:
        whole: the loader of the batches.
        rank, ranks: which part of how many.
        require_equal: called with what must be equal on all ranks of each batch that comes from elsewhere: it raises.
    """

    def __init__(
        self, whole: Loader, rank: int, ranks: int, require_equal: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        vars(self).update(vars(whole))
        self.whole, self.rank, self.ranks = whole, rank, ranks
        mixes = whole.augment is not None and any(isinstance(each, (Mixup, CutMix)) for each in whole.augment.changes)
        self._require_equal = require_equal if isinstance(whole, Batches) else None
        self._takes_rows = mixes or isinstance(whole, Batches)
        self.batch_size = self.rows(0).size
        if not self._takes_rows:
            self._blocks = whole._blocks.with_batches_of(self.batch_size)

    @property
    def largest_batch(self) -> int:
        return self.batch_size

    def __len__(self) -> int:
        return len(self.whole)

    def __repr__(self) -> str:
        return f"rank {self.rank} of {self.ranks}: {self.whole!r}"

    def rows(self, index: int) -> Rows:
        """Return the rows that this rank has of the batch at an index; of ``Batches``, which must be the latest one."""
        if isinstance(self.whole, Batches):
            size = self.whole.batch_size if self.whole._last is None else len(self.whole._last[2][1])
        else:
            size = min(self.whole.batch_size, self.whole.samples - index * self.whole.batch_size)
        return Rows.of_rank(size, self.rank, self.ranks)

    def order(self, epoch: int) -> numpy.ndarray:
        order, size = self.whole.order(epoch), self.whole.batch_size
        count = len(order) // size
        own = Rows.of_rank(size, self.rank, self.ranks)
        full = order[: count * size].reshape(count, size)[:, own.slice]
        rest = Rows.of_rank(len(order) - count * size, self.rank, self.ranks)
        return numpy.concatenate([full.reshape(-1), order[count * size :][rest.slice]])

    def for_network(self, network: Any) -> Shard:
        """Return this share, of a loader that was made for a network: that of the trainer."""
        return self

    def check_targets(self, loss: Any, outputs_of: Any) -> None:
        self.whole.check_targets(loss, outputs_of)

    def identity(self) -> dict[str, Any]:
        return self.whole.identity()

    def mark(self) -> list[int]:
        return self.whole.mark()

    def expect(self, mark: list[int]) -> None:
        self.whole.expect(mark)

    def sample(self, index: int) -> numpy.ndarray:
        return self.whole.sample(index)

    def epoch(self, epoch: int, first: int = 0) -> Generator[Batch, None, None]:
        if self._takes_rows:
            with closing(self.whole.epoch(epoch, first)) as batches:
                for index, batch in enumerate(batches, first):
                    if self._require_equal is not None:
                        self._require_equal(self._of_batch(batch, epoch, index, index == first))
                    yield self._own(batch, index)
            return
        place = first
        with closing(super().epoch(epoch, first)) as batches:
            for batch in batches:
                yield batch
                place += 1
        if place < len(self):  # fewer samples than ranks are left
            yield self.batch(epoch, place)

    def batch(self, epoch: int, index: int) -> Batch:
        if self._takes_rows or not self.rows(index).size:
            return self._own(self.whole.batch(epoch, index), index)
        return super().batch(epoch, index)

    def indices(self, epoch: int, index: int) -> numpy.ndarray:
        return self.whole.indices(epoch, index)[self.rows(index).slice]

    def _of_batch(self, batch: Batch, epoch: int, index: int, is_first: bool) -> dict[str, Any]:
        """Return what is compared of a batch: how many samples and batches there are; and its numbers, of a first one.

        A collection that shuffles in another order on each rank differs in the first batch of a pass already.
        """
        place = f"batch {index + 1} of epoch {epoch + 1}"
        found: dict[str, Any] = {f"number of samples in {place}": len(batch[1])}
        if is_first:
            found[f"checksum of {place}"] = checksum(batch)
        return {**found, f"number of batches after {place}": len(self.whole) - index - 1}

    def _own(self, batch: Batch, index: int) -> Batch:
        """Return this rank's rows of a whole batch."""
        own = self.rows(index).slice
        return batch[0][own], batch[1][own]


def rows_of(loader: Loader, index: int, size: int) -> Rows:
    """Return the rows that a loader gives of the batch at an index, the latest one: this rank's, or all ``size``."""
    return loader.rows(index) if isinstance(loader, Shard) else Rows(0, size, size)
