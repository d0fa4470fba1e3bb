"""Batches of an iterator, which come once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from training.data.batches import Batches
from training.data.blocks import Batch


class OneEpoch(Batches):
    """Batches of an iterator, such as a generator: they come once, and are one epoch, however many there are.

    One batch is taken in advance, to know whether it is the last. ``len`` is the number of batches known so far.

    Args:
        batches: the iterator.
        dtype: as for ``Batches``.

    Raises:
        TypeError, ValueError: as for ``Batches``.

    Examples:
        >>> import numpy as np
        >>> from training import SGD, Trainer, TwoLayerNet
        >>> x, t = np.eye(4, dtype="float32"), np.arange(4) % 2
        >>> trainer = Trainer(TwoLayerNet(4, 5, 2), ((x, t) for _ in range(3)), [(x, t)], SGD(), epochs=1)
        >>> history = trainer.train()
        >>> trainer.step
        3
    """

    def __init__(self, batches: Iterator[Any], dtype: Any = "float32") -> None:
        first = list(islice(batches, 1))
        super().__init__(first, dtype)
        self._kind, self._is_begun = type(batches).__name__, False
        self._ahead = self._looking_ahead(chain(first, batches))
        self.samples = 0  # unknown

    @property
    def largest_batch(self) -> int:
        """Number of samples in the first batch."""
        return self.batch_size

    def __repr__(self) -> str:
        return f"OneEpoch({self._kind} → {self.dtype})"

    def identity(self) -> dict[str, Any]:
        """Return what is known of the batches."""
        return {"batch_size": self.batch_size, "dtype": self.dtype.name}

    def batch(self, epoch: int, index: int) -> Batch:
        """Return the latest batch.

        Raises:
            LookupError: it is an earlier one.
        """
        if self._last is None or self._last[:2] != (epoch, index):
            raise LookupError(f"batch {index} of epoch {epoch + 1} came once, and is gone: {self} cannot give it again")
        return self._last[2]

    def expect(self, mark: list[int]) -> None:
        """Refuse to go on inside the epoch where the batch of the mark is another one, or does not come."""
        super().expect(mark)
        if mark:
            self._count = max(self._count, mark[1] + 1)

    def _new_pass(self, epoch: int) -> Iterator[Any]:
        if epoch == 0 and not self._is_begun:
            self._is_begun = True
            return self._ahead
        if self._last is not None and (epoch, 0) == self._last[:2]:  # the first step was interrupted
            return chain(self._batches_given, self._ahead)
        raise ValueError(
            f"{self} has no batches for a new epoch: an iterator can be gone through once; give a collection that can "
            "be gone through again, such as a list or an object with __iter__"
        )

    def _looking_ahead(self, batches: Iterator[Any]) -> Iterator[Any]:
        given, known = next(batches), 1
        for following in batches:
            known += 1
            self._count = max(self._count, known)
            yield given
            given = following
        yield given
