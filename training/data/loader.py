"""Load shuffled mini-batches, gathered on a background thread and copied to a GPU while the consumer computes."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from backend import checks, random
from layers import Loss
from layers.base import Shape
from training.data.augment import Augmentation
from training.data.blocks import Batch, Blocks
from training.data.given import are_indices, check_indices, check_inputs, checked_samples, fit_int32
from training.data.normalization import Normalization

if TYPE_CHECKING:
    from training.models.network import Network

SHUFFLE_STREAM = 1 << 62
"""Epoch k is shuffled by the seed's stream ``SHUFFLE_STREAM + k``, far from those of other purposes."""

CHECKSUMS = ("inputs", "labels")
"""The entries of ``Loader.identity`` that are checksums."""


class Loader:
    """Batches of labelled images: every epoch has every sample exactly once, in another order.

    The order depends on (seed, epoch) only, so that a run can resume at any epoch, and a batch can be made again.

    Args:
        images: (N, ...), uint8 or floating point; as a rule (N, C, H, W). Other integers, up to int64, are indices for
            an ``Embedding``, such as those of characters (N, T). A memory-mapped array stays on the disk, and
            ``training.data.inputs.Inputs`` are read as batches need them. Arrays of other libraries, such as tensors of
            PyTorch, are taken as ``backend.from_dlpack`` takes them.
        labels: class indices (N,), of any integer dtype; those of steps (N, T) or of pixels (N, H, W); or targets for
            other losses, (N,) or (N, numbers): floating numbers, or labels that are each right or wrong (bool or
            integers of two axes). An index may be negative for a loss that ignores it.
        batch_size: samples in a batch; the last one of an epoch has the rest.
        shuffle: draw a new order for each epoch; False keeps the samples' order.
        seed: of the shuffle, 0 ≤ seed < 2⁶⁴.
        drop_last: drop a last batch that is smaller than the others.
        dtype: of the batches: ``float16``, ``float32`` or ``float64``.
        prefetch: number of blocks (about 2 MB each) to gather, and copy to a GPU, ahead of time; 0 does so on demand.
        normalization: applied to the numbers of each batch; None leaves them as they are.
        augment: random changes of each batch, on the active device.

    Attributes:
        samples: number of samples in an epoch: N, or fewer with ``drop_last``.

    Raises:
        TypeError: the dtype of images, labels or batches is not one of the above, or another argument is not a number.
        ValueError: a number is out of range; shapes do not match, there are no samples, or less than one full batch
            with ``drop_last``; a label does not fit into int32 (the first one is named); or indices are to be
            normalized or augmented.

    Examples:
        >>> import numpy as np
        >>> from training import Loader
        >>> images, labels = np.zeros((10, 1, 28, 28), "uint8"), np.arange(10)
        >>> for x, t in Loader(images, labels, batch_size=4, shuffle=False):
        ...     print(x.shape, x.dtype, t)
        (4, 1, 28, 28) float32 [0 1 2 3]
        (4, 1, 28, 28) float32 [4 5 6 7]
        (2, 1, 28, 28) float32 [8 9]
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
        normalization: Normalization | None = None,
        augment: Augmentation | None = None,
    ) -> None:
        self.dtype = checks.floating_dtype("dtype", dtype)
        self._inputs, labels = checked_samples(images, labels)
        batch_size = checks.whole("batch_size", batch_size, 1, checks.LARGEST_SIZE)
        prefetch = checks.whole("prefetch", prefetch, 0, checks.LARGEST_SIZE)
        shuffle, drop_last = checks.flag("shuffle", shuffle), checks.flag("drop_last", drop_last)
        count = len(self._inputs)
        if drop_last and count < batch_size:
            raise ValueError(f"drop_last needs a full batch of {batch_size} samples, got {count}")
        seed = random.Generator(seed, SHUFFLE_STREAM).state["seed"]  # raises if it is out of range
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.samples = count - count % batch_size if drop_last else count
        self._next_epoch = 0
        self.normalization, self.augment = normalization, augment
        self.gives_indices = are_indices(self._inputs)
        self._index_count: int | None = None  # for which the inputs were checked
        if self.gives_indices and (normalization is not None or augment is not None):
            raise ValueError(f"indices are neither normalized nor augmented, got images of {self._inputs.dtype}")
        # Integers of two axes are class indices of steps, or labels that are right or wrong: see `for_network`.
        self._integers = labels if labels.ndim == 2 and labels.dtype.kind in "iu" else None
        is_classes = labels.dtype.kind in "iu" and (
            self._integers is None or (self.gives_indices and fit_int32(labels))
        )
        labels = labels.astype(np.int32 if is_classes else np.promote_types(self.dtype, np.float32))
        self._blocks = Blocks(self._inputs, labels, batch_size, self.dtype, normalization, prefetch)

    @property
    def largest_batch(self) -> int:
        """Number of samples in the largest batch: fewer than ``batch_size`` if an epoch has fewer."""
        return min(self.batch_size, self.samples)

    @property
    def prefetch(self) -> int:
        """Number of blocks that are made ahead of time."""
        return self._blocks.prefetch

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield the batches of the next epoch: the first loop over the loader gets epoch 0, the second epoch 1, …"""
        self._next_epoch += 1
        return self.epoch(self._next_epoch - 1)

    def __repr__(self) -> str:
        return (
            f"Loader({self._inputs.dtype}{list(self._inputs.shape)} → {self.dtype}, "
            f"batch_size={self.batch_size}, batches={len(self)}, shuffle={self.shuffle}, seed={self.seed})"
        )

    def order(self, epoch: int) -> np.ndarray:
        """Return the samples' indices in the order that epoch 0, 1, … visits them: int64 (samples,), on the host.

        Raises:
            ValueError: ``epoch`` is negative.
        """
        epoch = checks.whole("epoch", epoch, 0, SHUFFLE_STREAM)
        count = len(self._inputs)
        if not self.shuffle:
            return np.arange(self.samples)
        return random.Generator(self.seed, SHUFFLE_STREAM + epoch).permutation(count)[: self.samples]

    def for_network(self, network: Network) -> Loader:
        """Return this loader, with integer labels (N, T) as class indices for a network with scores of steps or pixels.

        Other networks get them as numbers, such as labels that are each right or wrong.

        Raises:
            TypeError: the network takes indices, and the inputs are none.
            ValueError: an input is an index that the network has no row for, and is named with its sample; or a label
                does not fit into int32.
        """
        if network.takes_indices and not self.gives_indices:
            raise TypeError(
                f"{network.title} takes indices, by its first layer, of an integer dtype such as int32 and not uint8, "
                f"got {self._inputs.dtype}"
            )
        if network.index_count not in (None, self._index_count):  # once, not in each epoch's evaluation
            check_inputs(self._inputs, network.index_count)
            self._index_count = network.index_count
        if self._integers is None:
            return self
        dtype = np.int32 if network.has_places else np.promote_types(self.dtype, np.float32)
        if dtype == self._blocks.labels.dtype:
            return self
        if network.has_places:
            check_indices(self._integers)
        other = copy.copy(self)
        other._blocks = self._blocks.with_labels(self._integers.astype(dtype))
        return other

    def check_targets(self, loss: Loss, outputs_of: Callable[[Shape], Shape]) -> None:
        """Raise unless a loss takes all labels or targets.

        The host checks them in advance: a loss on a GPU could not raise without waiting for the device.

        Args:
            outputs_of: returns the shape of what a network computes of a sample of a shape, as ``Network.outputs_of``.

        Raises:
            TypeError: they are of another dtype than the loss takes.
            ValueError: the network does not take such samples. Or a label is out of range, or another is wrong: the
                message has the first one and its index in the data set. Or the augmentation mixes labels, and the loss
                takes none that are mixed; or it moves pixels that have labels.
        """
        checks.instance("loss", loss, Loss, "a Loss")
        labels, outputs = self._blocks.labels, outputs_of(self._inputs.shape[1:])
        loss.check_targets(labels, (len(labels), *outputs))
        if self.augment is not None:
            self.augment.check_loss(loss, outputs)

    def identity(self) -> dict[str, Any]:
        """Return what the batches depend on, for comparison: two loaders with other batches differ in it."""
        given = {name: getattr(self, name) for name in ("samples", "batch_size", "shuffle", "seed")}
        given |= {"dtype": self.dtype.name, "shape": list(self._inputs.shape)}
        given |= dict(zip(CHECKSUMS, (self._inputs.checksum, zlib.crc32(self._blocks.labels.data)), strict=True))
        if self.normalization is not None:
            given["normalization"] = self.normalization.as_config()
        if self.augment is not None:
            given["augmentation"] = repr(self.augment)
        return given

    def mark(self) -> list[int]:
        """Return what tells where in an epoch the batches are, for ``expect``; empty: the identity tells all."""
        return []

    def expect(self, mark: list[int]) -> None:
        """Compare the batches that are passed over, where a run goes on, with a mark; here there is nothing to do.

        Raises:
            ValueError: it is not what ``mark`` returns.
        """
        if not isinstance(mark, list) or len(mark) not in (0, 3) or not all(type(number) is int for number in mark):
            raise checks.refusal(ValueError, "mark", "an empty list or three whole numbers", mark)

    def epoch(self, epoch: int, first: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of epoch 0, 1, …, on the active device.

        Args:
            epoch: counted from 0.
            first: the batch to begin with, from 0 to ``len(loader)``; those before it are passed over.

        Yields:
            ``(x, t)``: ``x`` (n, ...) of the loader's dtype, uint8 images divided by 255 and 4-D ones with
            channels-last memory, indices as int32 or int64; ``t`` int32, or targets that are no classes as float32
            (float64 for float64 batches). Both may be kept: they are not written to again. On a GPU they are ready for
            the stream that is current when they are taken, and the host does not wait for them.

        Raises:
            ValueError: ``epoch`` or ``first`` is out of range. An exception of the background thread is raised here,
                too.
            RuntimeError: the active device has changed since the next block was started.
        """
        first = checks.whole("first", first, 0, len(self))
        # Whole blocks are passed over, and the rest batch by batch: a batch lies in memory as it always does.
        blocks, rest = divmod(first * self.batch_size, self._blocks.samples)
        return self._augmented(self.order(epoch), epoch, blocks * self._blocks.samples, rest // self.batch_size)

    def batch(self, epoch: int, index: int) -> Batch:
        """Make the batch that ``epoch(epoch)`` yields at ``index`` again.

        Raises:
            IndexError: ``index`` is out of range.
        """
        indices = self.indices(epoch, index)
        (batch,) = self._blocks.make(indices)
        return batch if self.augment is None else self.augment(*batch, epoch, indices)

    def indices(self, epoch: int, index: int) -> np.ndarray:
        """Return the indices in the data set of the samples of ``batch(epoch, index)``: int64, on the host.

        Raises:
            IndexError: ``index`` is out of range.
        """
        index = checks.whole("index", index)
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} is out of range: expected 0 to {len(self) - 1}")
        first = index * self.batch_size
        return self.order(epoch)[first : first + self.batch_size]

    def sample(self, index: int) -> np.ndarray:
        """Return a sample's original image by its index in the data set: on the host, (C, H, W) or (...)."""
        index = checks.whole("index", index)
        if not 0 <= index < len(self._inputs):
            raise IndexError(f"sample {index} is out of range: expected 0 to {len(self._inputs) - 1}")
        return self._inputs[index]

    def _augmented(self, order: np.ndarray, epoch: int, place: int, passed: int) -> Generator[Batch, None, None]:
        """Yield the batches from a place of the order on, without the first ones that are passed over."""
        with closing(self._blocks.batches(order[place:])) as batches:
            place += passed * self.batch_size
            for x, t in islice(batches, passed, None):
                yield (x, t) if self.augment is None else self.augment(x, t, epoch, order[place : place + len(t)])
                place += len(t)
