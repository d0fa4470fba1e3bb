"""The rows of a batch that one part of it has, on one rank or in a step of several parts."""

from __future__ import annotations

import itertools
from typing import NamedTuple


class Rows(NamedTuple):
    """Rows of a batch: ``size`` of them from ``first`` on, of ``whole`` that the batch has.

    Examples:
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

    def parts(self, count: int) -> list[Rows]:
        """Return these rows in at most that many parts of like sizes, none empty; or one of no rows, if these are."""
        ends = [self.size * place // count for place in range(count + 1)]
        found = [Rows(self.first + a, b - a, self.whole) for a, b in itertools.pairwise(ends) if a < b]
        return found or [self]

    @property
    def slice(self) -> slice:
        """Where the rows are in the batch."""
        return slice(self.first, self.first + self.size)
