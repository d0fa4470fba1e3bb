"""Batches that a program makes itself, or another library's loader, in the place of a ``Loader``."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy

from backend import asarray, asnumpy, checks
from layers import Loss
from layers.base import Shape
from training.data.blocks import Batch
from training.data.loader import Loader

if TYPE_CHECKING:
    from training.models.network import Network


class Batches(Loader):
    """Batches ``(x, t)`` of any collection that can be gone through in each epoch, such as a torch ``DataLoader``.

    Arrays may be NumPy's, CuPy's or those of another library that ``backend.from_dlpack`` takes, such as tensors of
    PyTorch. Bytes are divided by 255, labels become int32, and other numbers get the dtype; integers for a network that
    begins with an ``Embedding`` stay indices. Integers (n, T) are labels of steps for a network with such scores.

    The order is the collection's own. A run that is interrupted and goes on in the same program continues the pass that
    was under way. One that goes on from a checkpoint inside an epoch passes over as many batches as were done, and is
    refused where the last of these is not the one that it was: a collection that shuffles needs the same order again,
    for which its random generator has to be seeded, or checkpoints at the ends of epochs. A collection has a ``len``,
    or it is gone through once to count.

    Args:
        batches: the collection. An iterator, which can be gone through once only, is refused: see ``OneEpoch``.
        dtype: of ``x``: float16, float32 or float64.

    Raises:
        TypeError: it is not such a collection.
        ValueError: it has no batches.

    Examples:
        >>> import numpy as np
        >>> from training import SGD, Trainer, TwoLayerNet
        >>> batches = [(np.eye(4, dtype="float32"), np.arange(4) % 2)] * 3
        >>> len(Trainer(TwoLayerNet(4, 5, 2), batches, batches, SGD(), epochs=2).train())
        2
    """

    def __init__(self, batches: Iterable[Any], dtype: Any = "float32") -> None:
        if not isinstance(batches, Iterable) or isinstance(batches, (str, bytes)) or iter(batches) is batches:
            raise checks.refusal(TypeError, "batches", "a collection of (x, t) that can be gone through again", batches)
        self.dtype = checks.floating_dtype("dtype", dtype)
        self._batches_given = batches
        self._loss: tuple[Loss, Callable[[Shape], Shape]] | None = None
        self._has_places = False
        self._last: tuple[int, int, Batch] | None = None
        self._pass: Iterator[Any] = iter(())
        self._mark: list[int] = []
        sizes = [len(_pair(batch, 0)[1]) for batch in islice(batches, 1)]
        if not sizes:
            raise ValueError("expected at least one batch, got none")
        self.batch_size = sizes[0]
        self._count = len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)
        whole: Any = getattr(batches, "dataset", None)
        self.samples = len(whole) if isinstance(whole, Sized) else self._count * self.batch_size
        self.shuffle, self.seed, self.normalization, self.augment = False, 0, None, None
        self.gives_indices = False
        self._next_epoch = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"Batches({type(self._batches_given).__name__} → {self.dtype}, batches={len(self)})"

    def for_network(self, network: Network) -> Batches:
        """Make batches of integers as a network needs them: those of inputs, and those of two axes as targets."""
        self.gives_indices, self._has_places = network.takes_indices, network.has_places
        return self

    def check_targets(self, loss: Loss, outputs_of: Callable[[Shape], Shape]) -> None:
        """Have the targets of each batch checked as it comes."""
        self._loss = loss, outputs_of

    def identity(self) -> dict[str, Any]:
        """Return what is known of the batches."""
        return {"batches": len(self), "batch_size": self.batch_size, "dtype": self.dtype.name}

    def mark(self) -> list[int]:
        """Return epoch, place and checksum of the latest batch."""
        return [] if self._last is None else [*self._last[:2], checksum(self._last[2])]

    def expect(self, mark: list[int]) -> None:
        """Refuse to go on inside an epoch where the batch of the mark is another one in this collection."""
        super().expect(mark)
        self._mark = mark

    def order(self, epoch: int) -> numpy.ndarray:
        """Return the samples' numbers in the order in which they come."""
        return numpy.arange(self.samples)

    def epoch(self, epoch: int, first: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches, from the one at ``first`` on; see ``Loader.epoch``.

        Raises:
            TypeError, ValueError: a batch is not a pair of arrays of one length, has a label that the loss does not
                take, there are fewer batches than announced, or others than before the run was interrupted.
        """
        first = checks.whole("first", first, 0, len(self))
        last = self._last
        if first and last is not None and last[0] == epoch and last[1] in (first - 1, first):
            interrupted = [last[2]] if last[1] == first else []  # the batch of the step that was
        else:
            interrupted = []
            self._pass = self._new_pass(epoch)
            self._pass_over(epoch, first)
        return self._rest_of_epoch(epoch, first, interrupted)

    def batch(self, epoch: int, index: int) -> Batch:
        """Return the batch at ``index`` again; one before the latest is taken from the collection anew."""
        if self._last is not None and self._last[:2] == (epoch, index):
            return self._last[2]
        return self._made(next(islice(self._batches_given, index, None)), index)

    def indices(self, epoch: int, index: int) -> numpy.ndarray:
        """Return the numbers of the samples of a batch, counted from the first of the epoch."""
        return index * self.batch_size + numpy.arange(len(self.batch(epoch, index)[1]))

    def sample(self, index: int) -> numpy.ndarray:
        """Return the input with that number."""
        batch, place = divmod(index, self.batch_size)
        epoch = 0 if self._last is None else self._last[0]
        return asnumpy(self.batch(epoch, batch)[0])[place]

    def _rest_of_epoch(self, epoch: int, place: int, interrupted: list[Batch]) -> Generator[Batch, None, None]:
        yield from interrupted
        place += len(interrupted)
        for given in self._pass:
            batch = self._made(given, place)
            self._last = epoch, place, batch
            yield batch
            place += 1
        self._check_count(place, len(self))

    def _check_count(self, found: int, least: int) -> None:
        if found < least:
            raise ValueError(f"expected {least:,} batches in an epoch, got {found:,}")

    def _new_pass(self, epoch: int) -> Iterator[Any]:
        """Return an iterator of an epoch's batches as they are given."""
        return islice(self._batches_given, len(self))

    def _pass_over(self, epoch: int, count: int) -> None:
        """Leave out the first batches of a pass; raise a ValueError unless the last one is that of the mark."""
        passed = 0
        for place, given in enumerate(islice(self._pass, count)):
            passed += 1
            if self._mark[:2] == [epoch, place] and checksum(self._made(given, place)) != self._mark[2]:
                raise ValueError(
                    f"batch {place} of epoch {epoch + 1} is not the one before the interruption: {self} must give the "
                    "same batches in the same order to go on inside an epoch; seed what shuffles it, or go on from a "
                    "checkpoint at the end of an epoch"
                )
        self._check_count(passed, count)

    def _made(self, given: Any, place: int) -> Batch:
        x, t = _pair(given, place)
        is_index = self.gives_indices and x.dtype.kind in "iu"
        if is_index and not numpy.can_cast(x.dtype, "int64"):
            raise TypeError(f"batch {place}: indices are integers up to int64, got {x.dtype}")
        if x.dtype == numpy.uint8 and not is_index:
            x = numpy.divide(x, 255, dtype=self.dtype)
        if x.ndim == 4:  # channels last in memory, as a Loader's
            x = numpy.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        is_class = t.dtype.kind in ("iub" if t.ndim == 1 or self._has_places else "")
        t = t.astype("int32" if is_class else numpy.promote_types(self.dtype, "float32"))
        if self._loss is not None:
            loss, outputs_of = self._loss
            try:
                loss.check_targets(t, (len(t), *outputs_of(x.shape[1:])))
            except (TypeError, ValueError) as error:
                raise type(error)(f"batch {place}: {error}") from None
        dtype = numpy.promote_types(x.dtype, "int32") if is_index else self.dtype
        return asarray(x.astype(dtype, copy=False)), asarray(t)


def checksum(batch: Batch) -> int:
    """Return a number that two batches with other numbers do not have in common, but for one in 4 billion."""
    x, t = (numpy.ascontiguousarray(asnumpy(array)).data for array in batch)
    return zlib.crc32(t, zlib.crc32(x))


def _pair(given: Any, place: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"batch {place} must be a pair (x, t), got {checks.shown(given)}")
    try:
        x, t = (numpy.asarray(asnumpy(array)) for array in given)
    except (TypeError, RuntimeError) as error:  # a tensor of bfloat16, on another device, or with a gradient
        raise TypeError(f"batch {place} must be arrays that NumPy can read: {error}") from error
    if x.ndim < 2 or not t.ndim or len(x) != len(t) or not math.prod(x.shape):
        raise ValueError(f"batch {place} must be x (n, ...) and t (n,) or (n, ...), got {x.shape} and {t.shape}")
    return x, t
