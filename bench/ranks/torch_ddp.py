"""PyTorch's DistributedDataParallel over gloo, as an expert would set it up."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from bench.sides.base import Case
from bench.sides.torch import Torch


class TorchDdp(Torch):
    """A rank of a process group.

    Args:
        rank, size: of this process.
        store: a file by which the processes find each other; it must not exist yet.
    """

    name = "torch DDP"

    def __init__(self, rank: int, size: int, store: str) -> None:  # PyTorch's threads are set where SIDE is made
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        self.rank, self.size = rank, size

    def parallel(self, model: Any) -> Any:
        return DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True)

    def training(self, network: Any, x: Any, t: Any, optimizer: str, way: str = "") -> Case:
        own = slice(len(x) * self.rank // self.size, len(x) * (self.rank + 1) // self.size)
        case = super().training(network, x[own], t[own], optimizer, way)

        def values() -> dict[str, np.ndarray]:
            found = case.values()
            loss = torch.as_tensor(found["loss"]).clone()
            dist.all_reduce(loss)
            return {**found, "loss": loss.numpy() / self.size}

        return Case(case.step, values, case.inside)
