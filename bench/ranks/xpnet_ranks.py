"""xpnet on several ranks: the step of ``Trainer`` for a rank's rows of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend import threads
from backend.types import Array
from bench.sides.base import Case, Side
from training.data.rows import Rows
from training.distributed.communicator import Ranks
from training.distributed.exchange import Exchange
from training.loop.step import gradients_in_parts
from training.optim.optimizers import by_name


class XpnetRanks(Side):
    """A rank of those that mpirun has started."""

    name = "xpnet"

    def __init__(self) -> None:
        ranks = Ranks.join()
        if ranks is None:
            raise RuntimeError("expected to be started by mpirun, with more than one rank")
        self.ranks = ranks
        self.rank, self.size = ranks.rank, ranks.size

    def training(self, network: Any, x: Array, t: Array, optimizer: str, way: str = "") -> Case:
        rule, exchange = by_name(optimizer), Exchange(self.ranks, network)
        own = Rows.of_rank(len(x), self.rank, self.size)
        x, t = np.ascontiguousarray(x[own.slice]), t[own.slice]
        weights = next(iter(network.params))
        before = network.params[weights].copy()
        loss: Any = None

        def step() -> None:
            nonlocal loss
            loss, _ = gradients_in_parts(network, x, t, 1.0, [own], exchange)
            rule.update(network.params, network.grads)

        def values() -> dict[str, np.ndarray]:
            after = network.params[weights]
            return {"loss": np.asarray(loss), "gradient": network.grads[weights].copy(), "update": after - before}

        return Case(step, values, threads.single_threaded_blas)
