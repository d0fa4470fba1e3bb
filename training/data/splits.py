"""Split samples at random: stratified, and the same for the same seed."""

from __future__ import annotations

from fractions import Fraction

import numpy

from backend import checks, random

SPLIT_STREAM = 3 << 61
"""The stream of a seed's random numbers that splits are drawn from, far from those of other purposes."""


def split(labels: numpy.ndarray | None, count: int, share: float, seed: int = 0) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Split ``count`` samples at random in two.

    With labels the split is stratified: each class gives its share, rounded so that the number of all is the share of
    ``count``, and keeps at least one sample.

    Args:
        labels: the samples' classes, integers (count,); None if they have none.
        share: of the samples that go into the second part, between 0 and 1.
        seed: 0 ≤ seed < 2⁶⁴.

    Returns:
        The indices of the first and of the second part, both rising: int64.

    Raises:
        TypeError: a number is of another kind.
        ValueError: ``share`` is not between 0 and 1, or labels and count do not fit.

    Examples:
        >>> import numpy
        >>> from training.data.splits import split
        >>> rest, chosen = split(numpy.repeat([0, 1], 10), 20, share=0.2)
        >>> len(rest), numpy.repeat([0, 1], 10)[chosen]
        (16, array([0, 0, 1, 1]))
    """
    count = checks.whole("count", count, 0, checks.LARGEST_COUNT)
    share = checks.real("share", share, above=0, below=1)
    order = random.Generator(seed, SPLIT_STREAM).permutation(count)
    groups = [order] if labels is None else _by_class(numpy.asarray(labels), order)
    wanted = _sizes([len(group) for group in groups], share)
    taken = numpy.zeros(count, bool)
    for group, size in zip(groups, wanted, strict=True):
        taken[group[:size]] = True
    return numpy.flatnonzero(~taken), numpy.flatnonzero(taken)


def _by_class(labels: numpy.ndarray, order: numpy.ndarray) -> list[numpy.ndarray]:
    """Return the indices of each class's samples in the random order."""
    if labels.shape != order.shape:
        raise ValueError(f"labels must be ({len(order)},), got {labels.shape}")
    drawn = order[numpy.argsort(labels[order], kind="stable")]
    _, counts = numpy.unique(labels, return_counts=True)
    return numpy.split(drawn, numpy.cumsum(counts)[:-1]) if len(counts) else []


def _sizes(counts: list[int], share: float) -> list[int]:
    """Return how many of each class are taken: rounded down, and the largest remainders up."""
    exact = [count * Fraction(share) for count in counts]
    sizes = [int(part) for part in exact]
    missing = round(sum(exact, Fraction())) - sum(sizes)
    by_remainder = sorted(range(len(counts)), key=lambda place: (sizes[place] - exact[place], place))
    for place in by_remainder[:missing]:
        sizes[place] += 1
    return [min(size, max(count - 1, 0)) for size, count in zip(sizes, counts, strict=True)]
