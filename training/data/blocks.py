"""Blocks of batches: gathered from the samples on a background thread, copied to a GPU, and scaled to numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator

import numpy as np

from backend import Device, array_module, current_device, profiling
from backend.transfer import copy_to_device, empty_pinned
from backend.types import Array
from training.data.given import are_indices
from training.data.inputs import Inputs
from training.data.normalization import Normalization
from training.data.prefetch import HostBatch, Prefetch

BLOCK_BYTES = 2 << 20
"""Batches are gathered in blocks of about this size: the cost of a block's calls is shared by its batches."""

Batch = tuple[Array, Array]

LOAD = profiling.Range("load", "data")


class Blocks:
    """Batches of samples in a given order, made block by block.

    Args:
        inputs, labels: the samples, and what belongs to each.
        batch_size: samples in a batch.
        dtype: of the batches' numbers; indices keep an integer one.
        normalization: applied to the numbers; None leaves them as they are.
        prefetch: number of blocks to make ahead of time; 0 makes them on demand.

    Attributes:
        samples: in a block, a multiple of the batch size.
        labels: as they were given.
    """

    def __init__(
        self,
        inputs: Inputs,
        labels: np.ndarray,
        batch_size: int,
        dtype: np.dtype,
        normalization: Normalization | None,
        prefetch: int,
    ) -> None:
        self.batch_size = batch_size
        self.prefetch = prefetch
        self._inputs, self.labels = inputs, labels
        self._dtype, self._normalization = dtype, normalization
        self._dtype_of_x = np.promote_types(inputs.dtype, np.int32) if are_indices(inputs) else dtype
        batch_bytes = batch_size * max(1, math.prod(inputs.stored_shape)) * dtype.itemsize
        self.samples = batch_size * max(1, BLOCK_BYTES // batch_bytes)

    def with_labels(self, labels: np.ndarray) -> Blocks:
        """Return blocks of the same samples with other labels."""
        other = copy.copy(self)
        other.labels = labels
        return other

    def with_batches_of(self, size: int) -> Blocks:
        """Return blocks of as many batches, each of another size."""
        other = copy.copy(self)
        other.batch_size, other.samples = size, max(size, self.samples // self.batch_size * size)
        return other

    def batches(self, order: np.ndarray) -> Generator[Batch, None, None]:
        """Yield batches: block by block gathered on a thread, copied while the consumer computes, scaled when due.

        Args:
            order: the indices of the samples, int64.
        """
        due = (order[first : first + self.samples] for first in range(0, len(order), self.samples))
        if self.prefetch == 0:
            for indices in due:
                yield from self.make(indices)
            return
        with Prefetch(due, self._allocate, self._load, self.prefetch) as ahead:
            for x, t in ahead:
                for batch in self._split(self._scale(x), t):
                    ahead.copy_what_is_loaded()
                    yield batch

    def make(self, indices: np.ndarray) -> Iterator[Batch]:
        """Gather, copy and scale one block, one after the other; return its batches."""
        loaded = self._load(indices, *self._allocate(len(indices)), current_device())
        x, t = copy_to_device(*loaded).get()
        return self._split(self._scale(x), t)

    def _allocate(self, count: int) -> HostBatch:
        # Bytes are copied as bytes, a quarter of float32's; other images in their final dtype.
        dtype = self._inputs.dtype if self._inputs.dtype == np.uint8 else self._dtype_of_x
        labels = empty_pinned((count, *self.labels.shape[1:]), self.labels.dtype)
        return empty_pinned((count, *self._inputs.stored_shape), dtype), labels

    def _load(self, indices: np.ndarray, x: np.ndarray, t: np.ndarray, device: Device) -> HostBatch:
        with LOAD:
            self._gather(indices, x, t)
            # A GPU scales the bytes after their copy; on a CPU this thread does, while the consumer computes.
            return (self._scale(x) if device.kind == "cpu" else x), t

    @profiling.operation
    def _gather(self, indices: np.ndarray, x: np.ndarray, t: np.ndarray) -> None:
        if self._normalization is None or x.dtype == np.uint8:
            self._inputs.read(indices, x)
        else:  # in float64: a column of dates has few digits left in float32
            exact = np.empty(x.shape)
            self._inputs.read(indices, exact)
            x[...] = self._normalization.apply(exact)
        self.labels.take(indices, axis=0, out=t, mode="clip")

    def _scale(self, x: Array) -> Array:
        """Return bytes as numbers from 0 to 1, or normalized; other images as they are."""
        if x.dtype != np.uint8:
            return x
        if self._normalization is None:
            return _divide_by_255(x, self._dtype)
        return self._normalization.apply(_divide_by_255(x, np.promote_types(self._dtype, np.float32)), self._dtype)

    def _split(self, x: Array, t: Array) -> Iterator[Batch]:
        if self._inputs.ndim == 4:
            x = x.transpose(0, 3, 1, 2)
        for first in range(0, len(t), self.batch_size):
            yield x[first : first + self.batch_size], t[first : first + self.batch_size]


@profiling.operation
def _divide_by_255(x: Array, dtype: np.dtype) -> Array:
    # Not times 1/255, which differs in the last bit for some of the 256 values. A quotient is rounded
    # correctly on both devices (IEEE 754), so it has the same bits; none is subnormal.
    return array_module(x).divide(x, 255, dtype=dtype)
