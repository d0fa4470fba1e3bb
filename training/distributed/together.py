"""What a trainer does together with the trainers of other ranks. Imports MPI and NCCL only where there are ranks."""

from __future__ import annotations

import functools
import zlib
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from backend import asnumpy, checks
from training.data.loader import Loader
from training.distributed.alone import Alone
from training.distributed.communicator import Ranks, RanksError
from training.distributed.exchange import COMPRESSIONS, Exchange
from training.distributed.shard import Shard
from training.distributed.statistics import synchronize
from training.distributed.stuck import ending_where_stuck

if TYPE_CHECKING:
    from training.loop.trainer import Trainer
    from training.models.network import Network

_SHOWN = 300
"""Characters of a value that a message has at most."""


def exchange_of(ranks: Ranks | None, network: Network, compress: str, sync_batch_norm: bool) -> Exchange | None:
    """Return what sums a network's gradients over the ranks, None for one process.

    With ``sync_batch_norm`` the network's batch normalizations take their statistics of all ranks.
    """
    checks.instance("ranks", ranks, (Ranks, type(None)), "Ranks or None")
    sync_batch_norm = checks.flag("sync_batch_norm", sync_batch_norm)
    compress = checks.choice("compress", compress, COMPRESSIONS)
    if ranks is None:
        return None
    exchange = Exchange(ranks, network, compress, state=not sync_batch_norm)
    if sync_batch_norm:
        synchronize(network, exchange)
    return exchange


def share_of(ranks: Ranks, loader: Loader) -> Loader:
    """Return what gives this rank's rows of a loader's batches: the loader itself for one process."""
    if isinstance(ranks, Alone):
        return loader
    return Shard(loader, ranks.rank, ranks.size, functools.partial(require_equal, ranks))


def begin_together(trainer: Trainer) -> None:
    """Begin, or go on, with a training on all ranks: at the same place of the same data, with rank 0's parameters.

    Raises:
        RanksError: the trainings are not the same ones.
    """
    ranks, network = trainer.ranks, trainer.network
    if isinstance(ranks, Alone):
        return
    require_equal(ranks, described(trainer))
    for array in (network.params.flat, *network.state.values()):
        ranks.broadcast(array, "were given the parameters")


def not_stuck(trainer: Trainer) -> AbstractContextManager:
    """Return a context that ends all ranks where one does not come, and the GPUs of the others wait for it."""
    exchange = trainer.exchange
    return ending_where_stuck(exchange.ranks) if exchange is not None and exchange.waits_on_gpu else nullcontext()


def described(trainer: Trainer) -> dict[str, Any]:
    """Return what the trainers of all ranks must have in common."""
    from training.loop.provenance import own_version

    return {
        "version of xpnet": own_version(),
        "network": repr(trainer.network),
        "training data": trainer.train_loader.identity(),
        "test data": trainer.test_loader.identity(),
        "optimizer": repr(trainer.optimizer),
        "parts": trainer.parts,
        "epochs": trainer.total_epochs,
        "step": trainer.step,
    }


def require_equal(ranks: Ranks, own: dict[str, Any]) -> None:
    """Raise a RanksError on all ranks unless they have given the same; it names the first rank that differs."""
    every = ranks.gather(own, "compared what they train")
    for rank, given in enumerate(every):
        for name, expected in every[0].items():
            if given.get(name) != expected:
                found, wanted = map(str, _difference(given.get(name), expected))
                start = next((place for place, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), 0)
                raise RanksError(
                    f"rank {rank} has another {name} than rank 0: expected {_cut(wanted, start)}, got "
                    f"{_cut(found, start)}"
                )


def parameters_agree(trainer: Trainer) -> None:
    """Raise a RanksError on all ranks unless they have the same parameters, bit for bit."""
    if isinstance(trainer.ranks, Alone):
        return
    sums = trainer.ranks.gather(zlib.crc32(asnumpy(trainer.network.params.flat).tobytes()), "compared their parameters")
    for rank, found in enumerate(sums):
        if found != sums[0]:
            raise RanksError(
                f"rank {rank} has other parameters than rank 0 after step {trainer.step}: its processor or its "
                "libraries compute other bits"
            )


def _difference(given: Any, expected: Any) -> tuple[Any, Any]:
    """Return where two values differ: of dictionaries only the entries that do."""
    if not isinstance(given, dict) or not isinstance(expected, dict):
        return given, expected
    names = [name for name in {**expected, **given} if given.get(name) != expected.get(name)]
    return {name: given.get(name) for name in names}, {name: expected.get(name) for name in names}


def _cut(text: str, place: int) -> str:
    """Return what is around a place of a long text."""
    first = max(0, place - _SHOWN // 3) if len(text) > _SHOWN else 0
    end = first + _SHOWN
    return f"{'…' if first else ''}{text[first:end]}{'…' if end < len(text) else ''}"
