"""Samples that are read when a batch needs them: from memory-mapped arrays, from files, or a part of others."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy

from backend import checks

BLOCK_BYTES = 8 << 20
"""Statistics and checks read the samples in blocks of about this size."""

_CHECKED_SAMPLES, _CHECKED_BYTES = 1000, 64 << 20
"""A checksum is of so many samples, or bytes, at most."""


class Inputs(ABC):
    """The inputs of N samples, read when they are asked for.

    A batch is read by ``read``, as it lies in memory: images with their channels last. Indexing returns them as users
    know them: ``inputs[3]`` is one sample (C, H, W), ``inputs[10:20]`` and ``inputs[[4, 2]]`` are (n, C, H, W).

    Attributes:
        shape: (N, C, H, W) of images, (N, features) of the rows of a table, or any other.
        dtype: uint8 or floating; other integers are indices.
    """

    shape: tuple[int, ...]
    dtype: numpy.dtype

    @abstractmethod
    def read(self, indices: numpy.ndarray, out: numpy.ndarray) -> None:
        """Read the samples at ``indices`` into ``out``: (n, H, W, C) for images, else (n, ...); of any dtype.

        Several threads may read at once.

        Raises:
            DataError: a sample cannot be read; its file is named.
            OSError: a file cannot be opened.
        """

    @cached_property
    def checksum(self) -> int:
        """A CRC-32 by which other inputs are told from these: of a part of them, evenly chosen, where they are many."""
        size = max(1, math.prod(self.stored_shape) * self.dtype.itemsize)
        step = -(-len(self) // max(1, min(_CHECKED_SAMPLES, _CHECKED_BYTES // size)))
        return zlib.crc32(numpy.ascontiguousarray(self[::step]).data)

    @property
    def ndim(self) -> int:
        """Number of axes of ``shape``."""
        return len(self.shape)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one sample as ``read`` stores it: (H, W, C) of an image."""
        return stored_shape(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> numpy.ndarray:
        indices = numpy.arange(len(self))[key]
        out = numpy.empty((indices.size, *self.stored_shape), self.dtype)
        self.read(indices.reshape(-1), out)
        samples = out.transpose(0, 3, 1, 2) if self.ndim == 4 else out
        return samples.reshape(self.shape[1:]) if indices.ndim == 0 else samples

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype}{list(self.shape)})"


class ArrayInputs(Inputs):
    """The samples of an array in memory.

    Args:
        array: (N, C, H, W), or any other (N, ...), of a dtype as above.
    """

    def __init__(self, array: numpy.ndarray) -> None:
        self.shape, self.dtype = array.shape, array.dtype
        # Channels-last once, so that every batch is; with one channel this does not copy.
        self._rows = numpy.ascontiguousarray(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)

    @cached_property
    def checksum(self) -> int:
        return zlib.crc32(self._rows.data)

    def read(self, indices: numpy.ndarray, out: numpy.ndarray) -> None:
        # mode="clip" (indices are never out of range): the default mode copies through a buffer.
        if out.dtype == self.dtype:
            self._rows.take(indices, axis=0, out=out, mode="clip")
        else:
            out[...] = self._rows.take(indices, axis=0)


class MappedInputs(Inputs):
    """The samples of a memory-mapped array, which stays on the disk: only what a batch needs is read.

    Args:
        array: (N, C, H, W), or any other (N, ...).
        dtype: floating, to which its numbers are converted as they are read; None for the array's own.

    Raises:
        TypeError: ``dtype`` is not floating.
    """

    def __init__(self, array: numpy.ndarray, dtype: Any = None) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype = array.dtype if dtype is None else checks.floating_dtype("dtype", dtype)

    def read(self, indices: numpy.ndarray, out: numpy.ndarray) -> None:
        rising = numpy.argsort(indices, kind="stable")  # the disk is read in one direction
        rows = self._array.transpose(0, 2, 3, 1) if self.ndim == 4 else self._array
        for place in rising:
            out[place] = rows[indices[place]]


class Subset(Inputs):
    """Some of the samples of others, in any order.

    Args:
        inputs: the others.
        indices: which of them, int (n,).
    """

    def __init__(self, inputs: Inputs, indices: numpy.ndarray) -> None:
        self.inputs, self.indices = inputs, numpy.asarray(indices)
        self.shape, self.dtype = (len(self.indices), *inputs.shape[1:]), inputs.dtype

    @cached_property
    def checksum(self) -> int:
        return zlib.crc32(numpy.ascontiguousarray(self.indices).data, self.inputs.checksum)

    def read(self, indices: numpy.ndarray, out: numpy.ndarray) -> None:
        self.inputs.read(self.indices[indices], out)


AnyInputs = Inputs | numpy.ndarray
"""Inputs that are read when they are needed, or an array."""


def stored_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one sample in memory, channels last, of samples of a shape (N, C, H, W) or (N, ...)."""
    if len(shape) != 4:
        return tuple(shape[1:])
    _, channels, height, width = shape
    return height, width, channels


def is_mapped(array: Any) -> bool:
    """Return True if an array is a memory-mapped file, or a view of one."""
    while isinstance(array, numpy.ndarray):
        if isinstance(array, numpy.memmap):
            return True
        array = array.base
    return False


def as_inputs(given: Inputs | numpy.ndarray) -> Inputs:
    """Return an array as inputs: one that is memory-mapped stays on the disk."""
    if isinstance(given, Inputs):
        return given
    return MappedInputs(given) if is_mapped(given) else ArrayInputs(given)


def chosen(inputs: AnyInputs, indices: numpy.ndarray) -> AnyInputs:
    """Return the samples at ``indices``; those of an array in memory are copied, others are read when needed."""
    if isinstance(inputs, Inputs) or is_mapped(inputs):
        return Subset(as_inputs(inputs), indices)
    return inputs[indices]
