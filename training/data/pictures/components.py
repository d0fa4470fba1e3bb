"""Connected components of a mask, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy


@dataclass(frozen=True)
class Component:
    """A connected component: pixels that touch each other, corners included.

    Attributes:
        label: its number in the label array.
        top, left, bottom, right: its bounding box; bottom and right are exclusive.
        area: the number of its pixels.
        mass: the sum of an image over its pixels.
    """

    label: int
    top: int
    left: int
    bottom: int
    right: int
    area: int
    mass: float

    @property
    def height(self) -> int:
        """Number of rows of its box."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns of its box."""
        return self.right - self.left

    @property
    def length(self) -> int:
        """The longer side of its box."""
        return max(self.height, self.width)

    def gap(self, other: Component) -> int:
        """Return the number of pixels between two boxes, 0 if they overlap or touch."""
        down = max(self.top - other.bottom, other.top - self.bottom, 0)
        across = max(self.left - other.right, other.left - self.right, 0)
        return max(down, across)


def find_components(mask: numpy.ndarray, image: numpy.ndarray) -> tuple[numpy.ndarray, list[Component]]:
    """Label the components of a mask (H, W): 1, 2, …, and 0 elsewhere.

    Args:
        mask: bool.
        image: (H, W); a component's mass is its sum over the component.

    Returns:
        The labels, int32 (H, W), and the components in the order of their labels.
    """
    height, width = mask.shape
    # The runs of each row, in one flat array where an empty column separates the rows.
    flat = numpy.pad(mask, ((0, 0), (0, 1))).ravel()
    changes = numpy.flatnonzero(numpy.diff(numpy.concatenate(([False], flat)).astype(numpy.int8)))
    starts, ends = changes[::2], changes[1::2]
    if not len(starts):
        return numpy.zeros(mask.shape, numpy.int32), []
    roots = _join(len(starts), *_touching(starts, ends, width + 1))
    numbers = numpy.unique(roots, return_inverse=True)[1].astype(numpy.int32) + 1
    labels = numpy.zeros(flat.size, numpy.int32)
    labels[flat] = numpy.repeat(numbers, ends - starts)
    labels = labels.reshape(height, width + 1)[:, :-1]

    count = int(numbers.max())
    areas = numpy.bincount(labels.ravel(), minlength=count + 1)
    masses = numpy.bincount(labels.ravel(), weights=image.ravel(), minlength=count + 1)
    rows, columns, last = starts // (width + 1), starts % (width + 1), (ends - 1) % (width + 1)
    top, left = numpy.full(count + 1, height), numpy.full(count + 1, width)
    bottom, right = numpy.zeros(count + 1, int), numpy.zeros(count + 1, int)
    numpy.minimum.at(top, numbers, rows)
    numpy.minimum.at(left, numbers, columns)
    numpy.maximum.at(bottom, numbers, rows + 1)
    numpy.maximum.at(right, numbers, last + 1)
    return labels, [
        Component(
            label,
            int(top[label]),
            int(left[label]),
            int(bottom[label]),
            int(right[label]),
            int(areas[label]),
            float(masses[label]),
        )
        for label in range(1, count + 1)
    ]


def _touching(starts: numpy.ndarray, ends: numpy.ndarray, stride: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return pairs of runs of which the second touches the first from below, corners included."""
    # Runs are sorted; a run of the next row touches one if it ends after its begin and begins before its end.
    first = numpy.searchsorted(ends, starts + stride, side="left")
    last = numpy.searchsorted(starts, ends + stride, side="right")
    counts = numpy.maximum(last - first, 0)
    above = numpy.repeat(numpy.arange(len(starts)), counts)
    offsets = numpy.arange(counts.sum()) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
    return above, first[above] + offsets


def _join(count: int, above: numpy.ndarray, below: numpy.ndarray) -> numpy.ndarray:
    """Return the smallest run of each run's component: smaller roots are passed on until nothing changes."""
    roots = numpy.arange(count)
    while True:
        one, other = roots[above], roots[below]
        lower, higher = numpy.minimum(one, other), numpy.maximum(one, other)
        if numpy.array_equal(lower, higher):
            return roots
        numpy.minimum.at(roots, higher, lower)
        while not numpy.array_equal(roots, roots[roots]):
            roots = roots[roots]
