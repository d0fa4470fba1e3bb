"""Remove the lines of ruled and squared paper, which run from edge to edge; strokes that cross them stay."""

from __future__ import annotations

import numpy

from training.data.pictures.morphology import run_lengths

_COVERED = 0.7
"""A rule covers at least this share of the page's width."""

_AT_ENDS = 0.06
"""The share of the page's width that makes one of its ends: a rule covers at least half of both ends."""

_SLOPE = 0.06
"""The largest slope at which rules are found."""

_THICKNESS = 0.03
"""A rule is thinner than this share of the page; a stroke from edge to edge of a tightly cropped digit is not."""


def without_rules(amount: numpy.ndarray, least: float) -> numpy.ndarray:
    """Return the amounts of ink (H, W) with 0 where there are only rules.

    Args:
        least: the least amount that counts as a rule: rules may be fainter than the writing on them.
    """
    for axis in (0, 1):
        turned = amount if axis == 0 else amount.T
        rules = _horizontal_rules(turned >= least)
        if rules is not None:
            turned = numpy.where(rules, 0, turned)
            amount = turned if axis == 0 else turned.T
    return amount


def _horizontal_rules(mask: numpy.ndarray) -> numpy.ndarray | None:
    """Return the mask of pixels that belong to rules only; None if there are no rules."""
    height, width = mask.shape
    rows, columns = numpy.nonzero(mask)
    if width < 16 or height < 16 or not len(rows):
        return None
    end = max(1, int(_AT_ENDS * width))
    left, right = columns < end, columns >= width - end
    reach = int(_SLOPE * width) + 1
    best, found = 0.0, None
    for drift in range(-reach, reach + 1):  # of a line, in rows, from the left edge to the right one
        lines = rows - numpy.rint(columns * (drift / width)).astype(int) + reach
        count = height + 2 * reach + 1
        # A line has one pixel in each column: these are the columns that it covers.
        covered = numpy.bincount(lines, minlength=count)
        whole = covered >= _COVERED * width
        if not whole.any():
            continue
        for side in (left, right):
            whole &= numpy.bincount(lines[side], minlength=count) >= end / 2
        score = float((covered[whole].astype(float) ** 2).sum())
        if score > best:
            best, found = score, (lines, whole)
    if found is None:
        return None
    lines, whole = found
    runs = run_lengths(mask, 0)[rows, columns]
    thickness = float(numpy.median(runs[whole[lines]]))
    if thickness > max(_THICKNESS * height, 2.5):
        return None
    beside = whole.copy()
    beside[1:] |= whole[:-1]
    beside[:-1] |= whole[1:]
    chosen = beside[lines] & (runs <= 1.6 * thickness + 1)
    rules = numpy.zeros(mask.shape, bool)
    rules[rows[chosen], columns[chosen]] = True
    return rules
