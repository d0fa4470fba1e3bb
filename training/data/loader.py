"""Shuffled mini-batches, gathered on a background thread and copied to a GPU while the consumer computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from backend import Upload, array_module, asnumpy, checks, profiling, random, upload
from kernels import labels as label_checks
from training.data.background import Background

SHUFFLE_STREAM = 1 << 62
"""Epoch k is shuffled by the seed's stream ``SHUFFLE_STREAM + k``, far from those of other purposes."""

BLOCK_BYTES = 2 << 20
"""Batches are gathered in blocks of about this size: the cost of a block's calls is shared by its batches."""

_MOST_CLASSES = 1 << 31  # labels are int32

Batch = tuple[Any, Any]

LOAD = profiling.Range("load", "data")


class Loader:
    """Batches of labelled images: every epoch has every sample exactly once, in an order of its own.

    The order is a function of (seed, epoch) alone, so a run can resume at any epoch, and a batch can be
    looked at again.

    Args:
        images: (N, ...), uint8 or floating point; as a rule (N, C, H, W).
        labels: (N,), class indices of any integer dtype.
        batch_size: samples in a batch; the last one of an epoch has what is left.
        shuffle: False gives the samples in their own order.
        seed: of the shuffling, 0 ≤ seed < 2⁶⁴.
        drop_last: leave out a last batch that would be smaller than the others.
        dtype: of the batches: ``float16``, ``float32`` or ``float64``.
        prefetch: blocks (about 2 MB each) that are gathered ahead, and copied ahead to a GPU; 0 gathers and copies each
            as it is due.

    Attributes:
        samples: samples in an epoch: N, or less with ``drop_last``.

    Raises:
        TypeError: dtype of images, labels or batches is none of the above, or another argument is no number.
        ValueError: a number is out of its range; shapes do not match, there are no samples, or not one full batch with
            ``drop_last``; or a label is negative or does not fit into int32 (the first such is named).
    """

    def __init__(
        self,
        images: Any,
        labels: Any,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        dtype: Any = "float32",
        prefetch: int = 2,
    ) -> None:
        images, labels = _on_host("images", images), _on_host("labels", labels)
        self.dtype = checks.floating_dtype("dtype", dtype)
        _check(images, labels)
        batch_size = checks.whole("batch_size", batch_size, 1, checks.LARGEST_SIZE)
        prefetch = checks.whole("prefetch", prefetch, 0, checks.LARGEST_SIZE)
        shuffle, drop_last = checks.flag("shuffle", shuffle), checks.flag("drop_last", drop_last)
        count = len(images)
        if drop_last and count < batch_size:
            raise ValueError(f"{count} samples make no full batch of {batch_size}, and drop_last leaves out others")
        seed = random.Generator(seed, SHUFFLE_STREAM).state["seed"]  # which refuses one out of range, here already
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.prefetch = prefetch
        self.samples = count - count % batch_size if drop_last else count
        self._next_epoch = 0
        self._shape = images.shape
        self._is_image = images.ndim == 4
        # Channels-last once, so that every batch is: for one channel this is no copy.
        self._rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1) if self._is_image else images)
        self._labels = labels.astype(np.int32)  # _check has seen that they fit
        batch_bytes = batch_size * max(1, self._rows[0].size) * self.dtype.itemsize
        self._block = batch_size * max(1, BLOCK_BYTES // batch_bytes)

    @property
    def largest_batch(self) -> int:
        """Samples in the largest batch: fewer than ``batch_size`` where an epoch has fewer."""
        return min(self.batch_size, self.samples)

    def __len__(self) -> int:
        """Return batches in an epoch."""
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Return the batches of the next epoch: the first loop over the loader sees epoch 0, the second epoch 1, …"""
        self._next_epoch += 1
        return self.epoch(self._next_epoch - 1)

    def __repr__(self) -> str:
        return (
            f"Loader({self._rows.dtype}{list(self._shape)} → {self.dtype}, "
            f"batch_size={self.batch_size}, batches={len(self)}, shuffle={self.shuffle}, seed={self.seed})"
        )

    def order(self, epoch: int) -> np.ndarray:
        """Return the samples' indices in the order that epoch 0, 1, … visits them: int64 (samples,), on the host.

        Raises:
            ValueError: epoch is negative.
        """
        epoch = checks.whole("epoch", epoch, 0, SHUFFLE_STREAM)
        count = len(self._rows)
        if not self.shuffle:
            return np.arange(self.samples)
        return random.Generator(self.seed, SHUFFLE_STREAM + epoch).permutation(count)[: self.samples]

    def check_labels(self, classes: int) -> None:
        """Refuse the labels, all of them, where one is none of so many classes.

        On the host and at once: the loss of a GPU could not say it without waiting.

        Raises:
            ValueError: the first such label is named, with its index in the data set.
        """
        label_checks.check_range(self._labels, checks.whole("classes", classes, 1, _MOST_CLASSES))

    def epoch(self, epoch: int) -> Generator[Batch, None, None]:
        """Return the batches of epoch 0, 1, …, on the active device.

        Yields:
            ``(x, t)``: ``x`` (n, ...) of the loader's dtype, uint8 images divided by 255 and 4-D ones with
            channels-last memory; ``t`` int32 (n,). Both may be kept: they are never written to again. On a GPU they
            are for the stream that is current as they are taken, and no host waits for them.

        Raises:
            ValueError: epoch is negative. An exception of the background thread is raised here as well.
            RuntimeError: another device is active than the one that was when a block due now was begun.
        """
        return self._batches(self.order(epoch))

    def batch(self, epoch: int, index: int) -> Batch:
        """Return the batch that ``epoch(epoch)`` yields at ``index``, made again.

        Raises:
            IndexError: there is no such batch.
        """
        return self._load(self._upload(self.indices(epoch, index))).get()

    def indices(self, epoch: int, index: int) -> np.ndarray:
        """Which samples of the data set make up ``batch``: int64, on the host.

        Raises:
            IndexError: there is no such batch.
        """
        index = checks.whole("index", index)
        if not 0 <= index < len(self):
            raise IndexError(f"an epoch has the batches 0 to {len(self) - 1}; there is no batch {index}")
        first = index * self.batch_size
        return self.order(epoch)[first : first + self.batch_size]

    def sample(self, index: int) -> np.ndarray:
        """Return a sample's image as it was given, by its index in the data set: on the host, (C, H, W) or (...)."""
        index = checks.whole("index", index)
        if not 0 <= index < len(self._rows):
            raise IndexError(f"the data set has the samples 0 to {len(self._rows) - 1}; there is no sample {index}")
        row = self._rows[index]
        return row.transpose(2, 0, 1) if self._is_image else row

    def _batches(self, order: np.ndarray) -> Generator[Batch, None, None]:
        blocks = (self._upload(order[first : first + self._block]) for first in range(0, len(order), self._block))
        if self.prefetch == 0:
            for block in blocks:
                yield from self._split(*self._load(block).get())
            return
        thread = Background("xpnet-loader")
        try:
            loading = deque(thread.submit(self._load, block) for block in islice(blocks, self.prefetch))
            copying: deque[Upload] = deque()
            while loading or copying:
                x, t = (copying.popleft() if copying else loading.popleft().result()).get()
                loading.extend(thread.submit(self._load, block) for block in islice(blocks, 1))
                for batch in self._split(x, t):
                    # Copies are begun in this thread: current device and stream are a matter of the thread.
                    while loading and _is_loaded(loading[0]):
                        copying.append(loading.popleft().result().start())
                    yield batch
        finally:  # also where the consumer leaves early: the generator is closed at its yield
            thread.close()

    def _split(self, x: Any, t: Any) -> Iterator[Batch]:
        for first in range(0, len(t), self.batch_size):
            yield x[first : first + self.batch_size], t[first : first + self.batch_size]

    def _upload(self, indices: np.ndarray) -> Upload:
        rows = self._rows
        # Bytes are copied as bytes, a quarter of float32's; other images in their final dtype.
        dtype = rows.dtype if rows.dtype == np.uint8 else self.dtype
        layout = (((len(indices), *rows.shape[1:]), dtype), ((len(indices),), self._labels.dtype))
        return upload(layout, partial(self._gather, indices), self._finish)

    def _load(self, block: Upload) -> Upload:
        with LOAD:
            return block.write()

    @profiling.operation
    def _gather(self, indices: np.ndarray, x: np.ndarray, t: np.ndarray) -> None:
        # mode="clip", for indices that are never out of range: by default NumPy goes through a buffer.
        if x.dtype == self._rows.dtype:
            self._rows.take(indices, axis=0, out=x, mode="clip")
        else:
            x[...] = self._rows.take(indices, axis=0)
        self._labels.take(indices, out=t, mode="clip")

    @profiling.operation
    def _finish(self, x: Any, t: Any) -> Batch:
        if x.dtype == np.uint8:
            # Not times 1/255, which differs in the last bit for some of the 256 values. A quotient is rounded
            # correctly on both devices (IEEE 754), so it has the same bits; none is subnormal.
            x = array_module(x).divide(x, 255, dtype=self.dtype)
        return x.transpose(0, 3, 1, 2) if self._is_image else x, t


def _is_loaded(block: Future[Upload]) -> bool:
    return block.done() and block.exception() is None  # an exception is raised where the block is due


def _on_host(name: str, given: Any) -> np.ndarray:
    try:
        return asnumpy(given)
    except ValueError as error:  # lists of several lengths
        raise checks.refusal(TypeError, name, "an array", given) from error


def _check(images: np.ndarray, labels: np.ndarray) -> None:
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"images are uint8 or floating point, not {images.dtype}")
    if images.ndim < 2 or labels.shape != images.shape[:1]:
        remedy = "; of one-hot labels take labels.argmax(axis=1)" if labels.ndim == 2 and labels.shape[1] > 1 else ""
        raise ValueError(f"images {images.shape} with labels {labels.shape}; needed are (N, ...) and (N,){remedy}")
    if not len(images):
        raise ValueError("there are no samples to load")
    label_checks.check_dtype(labels)
    label_checks.check_range(labels, _MOST_CLASSES)
