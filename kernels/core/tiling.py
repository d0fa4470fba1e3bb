"""A batch cut into parts, so that the columns of one part stay in cache and the CPU's cores share the parts.

Where a bit of a result depends on the cut, that depends on shapes alone, never on the number of threads: results are
the same bits for any. Elementwise work is cut finer for a single thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from backend import array_module, threads
from backend.types import Array

COLUMN_BYTES = {"numpy": 1 << 22, "cupy": 1 << 28}
"""The most a column buffer may hold: on the CPU little enough to stay near a core's L2 cache, and enough for a product
to be worth handing to a thread (see below); a GPU wants few, large launches."""

PIECE_BYTES = 1 << 22
"""Elementwise work goes in pieces of so many bytes on the CPU.

NumPy lets go of the interpreter's lock in every call, and a thread that waits for it sleeps and wakes: 20 to 40 µs were
measured on a virtual machine. A piece of 4 MiB takes some 200 µs a call, which pays for that; one of 256 KiB did not.
"""

_CACHED_BYTES = 1 << 19
"""What a single thread, which waits for nobody, takes at a time: a few arrays' pieces fit a core's L2 cache, and all
but the first of the calls on a piece run twice as fast."""

_WORTH_CUTTING = 1 << 20  # bytes that pay for handing a part or a piece to another thread


class Part(NamedTuple):
    """Images ``first_image`` … ``last_image - 1``, and of their output the rows ``first_row`` … ``last_row - 1``."""

    first_image: int
    last_image: int
    first_row: int
    last_row: int

    @property
    def images(self) -> slice:
        """The part's images in the batch."""
        return slice(self.first_image, self.last_image)

    def of_images(self, array: Array) -> Array:
        """Return the part's images of an array of the batch: itself, where these are all."""
        return array if self.last_image - self.first_image == len(array) else array[self.images]

    def of_output(self, array: Array) -> Array:
        """Return the part's rows of an array (N, OH, …) like the output: itself, where these are all."""
        if self.last_row - self.first_row == array.shape[1]:
            return self.of_images(array)
        return array[self.images, self.rows]

    @property
    def rows(self) -> slice:
        """The part's rows in the output."""
        return slice(self.first_row, self.last_row)


def cut(images: int, rows: int, row_bytes: int, library: Any, elementwise: bool = False) -> list[Part]:
    """Cuts (images, output rows) into parts whose columns fit ``COLUMN_BYTES``.

    A part is some whole images or, where one image is too much, a band of its rows; a band has at least one row.

    Args:
        row_bytes: bytes of columns that one output row of one image takes.
        elementwise: as for ``pieces``.
    """
    cap = COLUMN_BYTES[library.__name__]
    if elementwise and library is numpy and threads.limit() == 1:
        cap = min(cap, _CACHED_BYTES)
    return _cut(images, rows, row_bytes, cap, halved=library is numpy)


def cut_on_gpu(images: int, rows: int, row_bytes: int) -> list[Part]:
    """The parts that ``cut`` makes on a GPU, whether or not CuPy is installed."""
    return _cut(images, rows, row_bytes, COLUMN_BYTES["cupy"], halved=False)


def channel_strips(channels: int, channel_bytes: int, library: str) -> list[tuple[int, int]]:
    """The channels of one image in ranges whose columns fit ``COLUMN_BYTES``, for what cannot be cut into bands.

    Args:
        channel_bytes: of one channel's columns, all rows of the output.
        library: ``"numpy"`` or ``"cupy"``.
    """
    return ranges(channels, min(-(-channels * channel_bytes // COLUMN_BYTES[library]), channels))


def _cut(images: int, rows: int, row_bytes: int, cap: int, halved: bool) -> list[Part]:
    image_bytes = rows * row_bytes
    if image_bytes > cap:
        bands = ranges(rows, -(-rows // max(cap // row_bytes, 1)))
        return [Part(n, n + 1, *band) for n in range(images) for band in bands]
    if halved:
        cap = min(cap, max(images * image_bytes // 2, _WORTH_CUTTING))  # two parts at least, if worth it
    per_part = max(cap // max(image_bytes, 1), 1)
    return [Part(*piece, 0, rows) for piece in ranges(images, -(-images // per_part))]


def in_pieces(function: Callable[[Any], Any], x: Any) -> None:
    """Elementwise work: calls ``function(cut)`` for indices that cut an array like ``x`` along its first axis, as
    ``pieces`` does; a small array is not cut, and costs no more than the call.
    """
    if x.nbytes <= min(PIECE_BYTES, _WORTH_CUTTING):
        function(...)
    else:
        parallel_for(function, pieces(len(x), x[:1].nbytes, array_module(x), elementwise=True), x)


def pieces(length: int, item_bytes: int, library: Any, elementwise: bool = False) -> list[slice]:
    """Cuts ``length`` items of an axis into pieces of at most ``PIECE_BYTES``, two at least where that is worth a
    thread; on a GPU it is one piece.

    Args:
        elementwise: whether no bit of the result depends on the cutting. One thread then gets smaller pieces.
    """
    size = length * item_bytes
    largest = min(PIECE_BYTES, max(-(-size // 2), _WORTH_CUTTING))
    if elementwise and threads.limit() == 1:
        largest = min(largest, _CACHED_BYTES)
    count = -(-size // largest) if library is numpy else 1
    return [slice(*piece) for piece in ranges(length, max(min(count, length), 1))]


def lanes(parts: list[Part], result_bytes: int) -> list[list[Part]]:
    """Parts in groups that each sum up a result of their own (the sum's order is then fixed for any number of
    threads): up to 16 groups, fewer where their results would take more than 16 MiB.
    """
    count = min(len(parts), max(min((16 << 20) // max(result_bytes, 1), 16), 2))
    return [parts[begin:end] for begin, end in ranges(len(parts), count)]


def parallel_for(function: Callable[[Any], Any], items: list, *arrays: Any) -> None:
    """Calls ``function(item)`` for each item: on the CPU's cores for host arrays, in turn for device ones."""
    if array_module(*arrays) is numpy:
        threads.run(lambda index: function(items[index]), len(items))
    else:
        for item in items:
            function(item)


def ranges(total: int, count: int) -> list[tuple[int, int]]:
    """``total`` things in ``count`` ranges of near equal length: (begin, end) of each."""
    return [(total * i // count, total * (i + 1) // count) for i in range(count)]
