"""Normalize inputs by the mean and standard deviation of the training samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from backend import array_module
from backend.types import Array
from training.data.inputs import BLOCK_BYTES, AnyInputs, stored_shape


@dataclass(frozen=True)
class Normalization:
    """The mean and standard deviation of each channel of images (in 0 … 1), or of each column of a table.

    Attributes:
        mean: one number for each channel or column.
        std: likewise; 1 where all numbers are equal.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, inputs: AnyInputs) -> Normalization:
        """Compute it from samples: images (N, C, H, W), uint8 in 0 … 255 or floating, or rows (N, D).

        They are read block by block. Sums of bytes are exact; of other numbers the mean is found first, and then the
        deviations from it.
        """
        shape = stored_shape(inputs.shape)
        channels = shape[-1]
        numbers = max(1, len(inputs) * math.prod(shape[:-1]))
        blocks = _Blocks(inputs)
        if inputs.dtype == numpy.uint8:
            sums, squares = [0] * channels, [0] * channels
            for rows in blocks:
                wide = rows.reshape(-1, channels).astype(numpy.uint32)
                sums = _added(sums, wide.sum(axis=0, dtype=numpy.uint64))
                squares = _added(squares, (wide * wide).sum(axis=0, dtype=numpy.uint64))
            return cls.from_sums(sums, squares, numbers)
        mean, spread = numpy.zeros(channels), numpy.zeros(channels)
        for rows in blocks:
            mean += rows.reshape(-1, channels).sum(axis=0, dtype="float64") / numbers
        for rows in blocks:
            spread += ((rows.reshape(-1, channels) - mean) ** 2).sum(axis=0) / numbers
        return cls(tuple(mean.tolist()), _deviations(mean.tolist(), spread.tolist()))

    @classmethod
    def from_sums(cls, sums: Sequence[int], squares: Sequence[int], numbers: int) -> Normalization:
        """Compute it from the sums of bytes and of their squares over so many numbers in each channel."""
        means = tuple(total / (255 * numbers) for total in sums)
        spread = [
            (numbers * square - total * total) / (255 * numbers) ** 2
            for total, square in zip(sums, squares, strict=True)
        ]
        return cls(means, _deviations(means, spread))

    def apply(self, x: Array, dtype: Any = None) -> Array:
        """Return ``(x - mean) / std`` of samples whose last axis has the channels or columns.

        Computed in the dtype of ``x``, with the same bits on every device, and returned in ``dtype``.
        """
        mean, std = (array_module(x).asarray(numpy.asarray(numbers, x.dtype)) for numbers in (self.mean, self.std))
        return ((x - mean) / std).astype(dtype or x.dtype, copy=False)

    def as_config(self) -> dict[str, list[float]]:
        """Return it as JSON can hold it."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_config(cls, config: Any, channels: int) -> Normalization:
        """Read what ``as_config`` wrote, for that many channels or columns.

        Raises:
            ValueError: it is damaged, or of another number of channels.
        """
        numbers = []
        for name in ("mean", "std"):
            given = config.get(name) if isinstance(config, Mapping) else None
            if (
                not isinstance(given, list)
                or len(given) != channels
                or not all(type(number) in (int, float) and abs(number) < 1e300 for number in given)
            ):
                raise ValueError(f"the model's normalization: expected {channels} numbers as {name}")
            numbers.append(tuple(map(float, given)))
        if min(numbers[1]) <= 0:
            raise ValueError("the model's normalization: expected standard deviations above 0")
        return cls(*numbers)


class _Blocks:
    """The samples as they are stored, in blocks; an object that can be iterated over again."""

    def __init__(self, inputs: AnyInputs) -> None:
        self._inputs = inputs

    def __iter__(self) -> Any:
        inputs, shape = self._inputs, stored_shape(self._inputs.shape)
        size = max(1, BLOCK_BYTES // max(1, math.prod(shape) * inputs.dtype.itemsize))
        for first in range(0, len(inputs), size):
            rows = inputs[first : first + size]
            yield rows.transpose(0, 2, 3, 1) if rows.ndim == 4 else rows


def _added(totals: Sequence[int], more: numpy.ndarray) -> list[int]:
    return [total + int(number) for total, number in zip(totals, more, strict=True)]


def _deviations(means: Sequence[float], spread: Sequence[float]) -> tuple[float, ...]:
    """Return the roots of variances; 1 for one that is nothing but the rounding of equal numbers."""
    deviations = (math.sqrt(max(variance, 0.0)) for variance in spread)
    return tuple(std if std > 1e-14 * abs(mean) else 1.0 for mean, std in zip(means, deviations, strict=True))
