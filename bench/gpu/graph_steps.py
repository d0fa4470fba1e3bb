"""Make a model's training steps by CUDA graph on one batch, for ``python -m bench host``."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import numpy

from backend import random
from training.data import Loader
from training.data.blocks import Batch
from training.loop import step_graphs
from training.loop.trainer import Trainer

_EAGER = step_graphs.EAGER_STEPS + 1  # the last of them is captured


class _OneBatch(Loader):
    """A loader that costs nothing: it yields the same batch on the device, over and over."""

    def __len__(self) -> int:
        return 1 << 30

    def epoch(self, epoch: int, first: int = 0) -> Generator[Batch, None, None]:
        batch = self.batch(0, 0)
        while True:
            yield batch

    def indices(self, epoch: int, index: int) -> numpy.ndarray:
        return numpy.arange(self.batch_size)


def graph_step(network: Any, optimizer: Any, batch: int, computes: bool) -> Callable[[], object]:
    """Return a ``Trainer``'s step by graph, bookkeeping included, which has run often enough to be a replay.

    Args:
        computes: False in the dry mode of the emulated device, where there are no numbers to compare a replay by.

    Raises:
        RuntimeError: steps of this network cannot be captured; the message says why.
    """
    random.seed(0)
    loader = _OneBatch(numpy.zeros((batch, *network.input_dim), "uint8"), numpy.arange(batch) % 10, batch)
    trainer = Trainer(network, loader, loader, optimizer)
    trainer.step = 1  # before the first step a trainer reads the parameters
    steps = trainer.steps(1)
    comparing: AbstractContextManager[Any] = nullcontext()
    if not computes:
        comparing = mock.patch.object(step_graphs, "_equal", return_value=True)
    with comparing:
        for _ in range(_EAGER):
            next(steps)
    if reason := refusal(trainer):
        raise RuntimeError(f"steps are not run as a graph: {reason}")
    return lambda: next(steps)


def refusal(trainer: Trainer) -> str:
    """Return why a trainer's steps have not been run as graphs so far; empty if they have."""
    graphs = trainer._graphs
    if graphs is None:
        return "the trainer has an optimizer or a callback that no graph can see all of"
    return graphs.refusal or ("" if graphs.shapes else "there were too few")
