"""Tell whether an input looks like the training images of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy

_NUMBERS = 50
"""The most cells of a grid over an image; their means describe it."""

_SOLID = 0.18
"""A region that holds a square of this share of an image's side is solid: strokes are narrower."""

_IMAGES = 10_000
"""The most training images that are used."""

_STORED = 5
"""Digits of the numbers in a model's file."""

_QUANTILE = 0.999
"""Share of the training images that lie within the limit."""

_MARGIN = 1.0
"""Factor on that limit for photographs; those of digits stay within it."""


@dataclass(frozen=True, eq=False)
class Likeness:
    """The mean and covariance of the training images, on a coarse grid.

    The distance of an image is the Mahalanobis distance: from the mean, in standard deviations along each direction in
    which the training images vary.

    Attributes:
        grid: rows and columns.
        mean: (D,) for D = C · rows · columns + 2.
        whitening: (D, D), the matrix that makes deviations independent with variance 1.
        limit: the largest distance of an image that is like the training images.
    """

    grid: tuple[int, int]
    mean: numpy.ndarray
    whitening: numpy.ndarray
    limit: float

    @classmethod
    def of(cls, images: numpy.ndarray) -> Likeness | None:
        """Return the likeness of training images (N, C, H, W), uint8 or floating; None if there are too few."""
        count, channels, height, width = images.shape
        cells = max(1, int((_NUMBERS / channels) ** 0.5))
        grid = (min(cells, height), min(cells, width))
        if count < 4 * channels * grid[0] * grid[1]:
            return None
        images = images[:: -(-count // _IMAGES)]
        scale = 255 if images.dtype == numpy.uint8 else 1
        rows = numpy.concatenate(
            [_describe(block.astype(numpy.float32) / scale, grid) for block in _blocks(images)]
        ).astype(numpy.float64)
        if not numpy.isfinite(rows).all():
            return None
        mean = rows.mean(axis=0)
        covariance = numpy.cov(rows, rowvar=False).reshape(len(mean), len(mean))
        # Cells that never vary would make any change infinitely unlikely, and photographs are not that exact.
        least = numpy.full(len(mean), max(0.02 * float(numpy.trace(covariance)) / len(mean), 1e-4))
        least[-2:] = 1e-5
        covariance += numpy.diag(least)
        whitening = numpy.linalg.inv(numpy.linalg.cholesky(covariance))
        whole = cls(grid, mean, whitening, 0.0)
        return cls(grid, mean, whitening, _MARGIN * float(numpy.quantile(whole._distances(rows), _QUANTILE)))

    @classmethod
    def from_config(cls, config: Any, shape: tuple[int, ...]) -> Likeness:
        """Read what ``as_config`` wrote.

        Raises:
            ValueError: the config is damaged, or is of images of another shape.
        """
        try:
            rows, columns = config["grid"]
            numbers = shape[0] * rows * columns + 2
            mean = numpy.asarray(config["mean"], numpy.float64)
            lower = numpy.asarray(config["whitening"], numpy.float64)
            limit = float(config["limit"])
            fits = (
                isinstance(rows, int)
                and isinstance(columns, int)
                and 1 <= rows <= shape[1]
                and 1 <= columns <= shape[2]
                and numbers <= 2 * _NUMBERS
                and mean.shape == (numbers,)
                and lower.shape == (numbers * (numbers + 1) // 2,)
            )
            if not (fits and numpy.isfinite(mean).all() and numpy.isfinite(lower).all() and math.isfinite(limit)):
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ValueError("the model's input: the description of its training images is damaged") from error
        whitening = numpy.zeros((numbers, numbers))
        whitening[numpy.tril_indices(numbers)] = lower
        return cls((rows, columns), mean, whitening, limit)

    def as_config(self) -> Mapping[str, Any]:
        """Return values that JSON can hold: some thousand numbers."""
        lower = self.whitening[numpy.tril_indices(len(self.mean))]
        return {
            "grid": list(self.grid),
            "mean": _rounded(self.mean),
            "whitening": _rounded(lower),
            "limit": float(f"{self.limit:.{_STORED}g}"),
        }

    def includes(self, image: numpy.ndarray) -> bool:
        """Return whether an input (C, H, W) is within the limit."""
        return self.distance(image) <= self.limit

    def distance(self, image: numpy.ndarray) -> float:
        """Return the distance of an input (C, H, W) from the training images."""
        return float(self._distances(_describe(image[None], self.grid))[0])

    def _distances(self, rows: numpy.ndarray) -> numpy.ndarray:
        return numpy.sqrt((((rows - self.mean) @ self.whitening.T) ** 2).mean(axis=1))


def _blocks(images: numpy.ndarray) -> list[numpy.ndarray]:
    return [images[start : start + 4096] for start in range(0, len(images), 4096)]


def _describe(images: numpy.ndarray, grid: tuple[int, int]) -> numpy.ndarray:
    """Return features (N, C · rows · columns + 2): the means over the cells of a grid, the share that is solid, and how
    much neighboring pixels differ."""
    gray = images.mean(axis=1)
    window = max(2, round(_SOLID * min(gray.shape[1:])))
    solid = gray
    for axis in (1, 2):
        solid = numpy.lib.stride_tricks.sliding_window_view(solid, min(window, gray.shape[axis]), axis=axis).min(
            axis=-1
        )
    changes = sum(abs(numpy.diff(gray, axis=axis)).sum(axis=(1, 2)) / gray[0].size for axis in (1, 2))
    means = images
    for axis, count in ((2, grid[0]), (3, grid[1])):
        edges = numpy.linspace(0, images.shape[axis], count + 1).astype(int)
        shape = [1] * 4
        shape[axis] = count
        sums = numpy.add.reduceat(means, edges[:-1], axis=axis)
        means = sums / numpy.diff(edges).astype(numpy.float32).reshape(shape)
    columns = [means.reshape(len(images), -1), solid.mean(axis=(1, 2))[:, None], numpy.asarray(changes)[:, None]]
    return numpy.concatenate(columns, axis=1)


def _rounded(numbers: numpy.ndarray) -> list[float]:
    return [float(f"{number:.{_STORED}g}") for number in numbers.tolist()]
