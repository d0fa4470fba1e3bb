"""The rows of a batch that one part of it has, on one rank or in a step of several parts."""

from __future__ import annotations

import itertools
from typing import NamedTuple


class Rows(NamedTuple):
    """Rows of a batch: ``size`` of them from ``first`` on, of ``whole`` that the batch has.

    Examples:
        >>> from training.data.rows import Rows
        >>> Rows(0, 10, 10).parts(3)
        [Rows(first=0, size=3, whole=10), Rows(first=3, size=3, whole=10), Rows(first=6, size=4, whole=10)]
        >>> Rows.of_rank(10, rank=1, ranks=2)
        Rows(first=5, size=5, whole=10)
    """

    first: int
    size: int
    whole: int

    @classmethod
    def of_rank(cls, whole: int, rank: int, ranks: int) -> Rows:
        """Return the rows that a rank has of a batch."""
        first, end = (whole * place // ranks for place in (rank, rank + 1))
        return cls(first, end - first, whole)

    def parts(self, count: int, ranks: int = 1) -> list[Rows]:
        """Return these rows in so many parts of like sizes; in fewer where no rank would have a row for one of them."""
        count = max(1, min(count, -(-self.whole // ranks)))
        ends = [self.size * place // count for place in range(count + 1)]
        return [Rows(self.first + first, end - first, self.whole) for first, end in itertools.pairwise(ends)]

    @property
    def slice(self) -> slice:
        """Where the rows are in the batch."""
        return slice(self.first, self.first + self.size)
