"""Morphology and blur of pictures: the largest, smallest and mean value of a sliding window."""

from __future__ import annotations

from collections.abc import Callable

import numpy


def largest(image: numpy.ndarray, size: int) -> numpy.ndarray:
    """Return the largest value in the square of ``size`` (odd) around each pixel of (H, W)."""
    return _slide(image, size, numpy.maximum)


def smallest(image: numpy.ndarray, size: int) -> numpy.ndarray:
    """Return the smallest value in the square of ``size`` (odd) around each pixel of (H, W)."""
    return _slide(image, size, numpy.minimum)


def closing(image: numpy.ndarray, size: int) -> numpy.ndarray:
    """Fill regions that are darker than their surroundings and narrower than ``size``; edges of wider regions stay
    sharp."""
    return smallest(largest(image, size), size)


def disk_dilation(image: numpy.ndarray, radius: float) -> numpy.ndarray:
    """Return the largest value within ``radius`` of each pixel."""
    reach = int(radius)
    padded = numpy.pad(image, reach, mode="edge")
    height, width = image.shape
    out = image
    for down in range(-reach, reach + 1):
        across = int((radius**2 - down**2) ** 0.5)
        rows = padded[reach + down : reach + down + height, reach - across : reach + across + width]
        out = numpy.maximum(out, _along(rows, 2 * across + 1, 1, numpy.maximum))
    return out


def blur(image: numpy.ndarray, sigma: float) -> numpy.ndarray:
    """Return the image with a Gaussian blur; edge pixels are repeated beyond the border."""
    if sigma <= 0:
        return image
    reach = max(1, int(3 * sigma + 0.5))
    weights = numpy.exp(-0.5 * (numpy.arange(-reach, reach + 1) / sigma) ** 2).astype(numpy.float32)
    weights /= weights.sum()
    for axis in range(2):
        pads = [(reach, reach) if each == axis else (0, 0) for each in range(2)]
        padded = numpy.pad(image, pads, mode="edge")
        length = image.shape[axis]
        image = sum(weight * padded.take(range(start, start + length), axis) for start, weight in enumerate(weights))
    return image


def run_lengths(mask: numpy.ndarray, axis: int) -> numpy.ndarray:
    """Return for each pixel of a mask the length of the run of set pixels along ``axis`` that it is in; 0 if it is not
    set."""
    if axis == 0:
        return run_lengths(mask.T, 1).T
    flat = numpy.pad(mask, ((0, 0), (0, 1))).ravel()
    changes = numpy.flatnonzero(numpy.diff(numpy.concatenate(([False], flat, [False])).astype(numpy.int8)))
    starts, ends = changes[::2], changes[1::2]
    lengths = numpy.zeros(flat.size, numpy.int32)
    lengths[flat] = numpy.repeat(ends - starts, ends - starts)
    return lengths.reshape(mask.shape[0], mask.shape[1] + 1)[:, :-1]


def _slide(image: numpy.ndarray, size: int, extreme: Callable[..., numpy.ndarray]) -> numpy.ndarray:
    reach = size // 2
    padded = numpy.pad(image, reach, mode="edge")
    return _along(_along(padded, size, 0, extreme), size, 1, extreme)


def _along(padded: numpy.ndarray, size: int, axis: int, extreme: Callable[..., numpy.ndarray]) -> numpy.ndarray:
    """Return the extreme over ``size`` pixels from each pixel on, in log2(size) passes."""
    if axis == 1:
        return _along(padded.T, size, 0, extreme).T
    window = 1
    while 2 * window <= size:
        padded = extreme(padded[:-window], padded[window:])
        window *= 2
    rest = size - window
    return extreme(padded[:-rest], padded[rest:]) if rest else padded
