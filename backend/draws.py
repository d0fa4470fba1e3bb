"""What random numbers are drawn for and made of: the rows of a part of a batch, and distributions from random words."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy

# dtype → (32-bit words an element takes, bits of the fraction)
_UNIFORM = {"float16": (1, 11), "float32": (1, 24), "float64": (2, 53)}


class Part(NamedTuple):
    """The rows of a batch, ``first`` and those after it, that a part of it has, and how many the whole batch has.

    ``draw`` is 0 for the first draw of the first part, which begins where the generator is; 1 for the first draw of
    another part, which goes back to there; and 2 for later draws of a part.
    """

    first: int
    rows: int
    whole: int
    draw: int

    def words(self, count: int) -> tuple[int, int]:
        """Return how many words the whole batch takes, and where this part's begin, if the part takes ``count``."""
        if not self.rows:
            return count, 0
        return count // self.rows * self.whole, count // self.rows * self.first


def words_of(dtype: Any) -> int:
    """Return how many 32-bit words a uniform number of a dtype takes."""
    return _UNIFORM[dtype.name][0]


def uniform(words: Any, dtype: Any) -> Any:
    """Return numbers uniform in [0, 1), one for each ``words_of(dtype)`` words, on their device."""
    per_element, fraction = _UNIFORM[dtype.name]
    if per_element == 1:
        values = (words >> (32 - fraction)).astype(dtype)
    else:
        values = (words[0::2] >> 5).astype(dtype) * 2.0**26 + (words[1::2] >> 6)
    values *= 2.0**-fraction
    return values


def normal(words: numpy.ndarray) -> numpy.ndarray:
    """Return normal numbers (Box and Muller, 1958): one for each word, float64; the words are even in number."""
    pairs = words.reshape(-1, 2)
    radius = numpy.sqrt(-2.0 * numpy.log((pairs[:, 0] + 1.0) * 2.0**-32))  # of (0, 1]: never log(0)
    angle = pairs[:, 1] * (2.0 * numpy.pi * 2.0**-32)
    return numpy.stack((radius * numpy.cos(angle), radius * numpy.sin(angle)), axis=1).reshape(-1)
