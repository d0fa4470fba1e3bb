"""``xpnet train`` as one of several ranks that a launcher such as mpirun has started."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import click

from training.cli.common import Compute, UserError
from training.distributed.ending import READ, wait_for_turn
from training.distributed.launch import launched

if TYPE_CHECKING:
    from training.distributed.communicator import Ranks
    from training.loop.settings import Settings
    from training.loop.trainer import Trainer

Result = TypeVar("Result")

_LOCAL = ("data", "init", "log", "checkpoint_every", "keep_checkpoints")
"""Settings in which ranks may differ: paths, and what only rank 0 does."""


@functools.lru_cache(maxsize=1)
def joined() -> Ranks | None:
    """Return the ranks that this process is one of, or None. MPI starts at the first call.

    Raises:
        UserError: MPI is missing, or is not the launcher's.
    """
    if launched() is None:
        return None
    from training.distributed.communicator import Ranks, RanksError

    try:
        return Ranks.join()
    except RanksError as error:
        raise UserError(str(error)) from error


def own_device(ranks: Ranks, device: str, threads: int | None) -> tuple[str, int]:
    """Return the device and the threads of this rank: a GPU for each, and its share of the cores it may run on.

    Raises:
        UserError: a machine has fewer GPUs than ranks, or all of its ranks were given one GPU of several.
    """
    import backend

    report = backend.inspect_cuda()
    if device.startswith("cuda:") and ranks.local_size > 1 and len(report.gpus) > 1:
        raise UserError(f"--device {device} is one GPU for all ranks: expected --device cuda, a GPU for each")
    if device == "cuda" or (device == "auto" and report.usable):
        count = len(report.gpus)
        if 1 < count < ranks.local_size:
            raise UserError(
                f"{ranks.host} has {ranks.local_size} ranks and {count} GPUs: expected a GPU for each rank; start "
                "fewer ranks, or give --device cpu"
            )
        device = f"cuda:{ranks.local_rank if count > 1 else 0}"  # one GPU: the launcher shows each rank its own
    return device, threads or ranks.threads


def agree(ranks: Ranks, settings: Settings, compute: Compute, graph: bool) -> None:
    """Raise a UserError on all ranks unless they were started alike."""
    import numpy

    import backend
    from kernels.core import native
    from training.distributed.communicator import RanksError
    from training.distributed.together import require_equal
    from training.loop.provenance import own_version

    own = {
        "version of xpnet": own_version(),
        "version of Python": platform.python_version(),
        "version of NumPy": numpy.__version__,
        "kind of device": compute.device.kind,
        "number of GPUs": len(backend.inspect_cuda().gpus),
        "kind of C kernels": native.library().processor if native.available() else "NumPy",
        "arguments": {
            **{name: value for name, value in asdict(settings).items() if name not in _LOCAL},
            "graph": graph,
        },
    }
    try:
        require_equal(ranks, own)
    except RanksError as error:
        raise UserError(str(error)) from error


def in_turn(ranks: Ranks | None, work: Callable[[], Result]) -> Result:
    """Return what ``work`` returns. The first rank of a machine works before the others, to download for all."""
    if ranks is None:
        return work()
    result = work() if ranks.local_rank == 0 else None
    ranks.meet("waited for the first to load the data")
    return work() if result is None else result


def follow(trainer: Trainer, ranks: Ranks) -> None:
    """Train as another rank than rank 0, which writes and prints.

    Raises:
        ClickException: the training failed.
        Exit: a signal ended it, on all ranks.
    """
    import warnings

    from training.distributed.communicator import RanksError
    from training.loop.non_finite import NonFiniteError
    from training.loop.stopping import deferred

    code = 0
    try:
        with deferred(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            trainer.train(quiet=True)
    except (NonFiniteError, RanksError) as error:
        raise click.ClickException(str(error)) from error
    except MemoryError as error:
        raise UserError(f"{error}; give a smaller --model or --batch-size") from error
    except KeyboardInterrupt as stop:
        code = getattr(stop, "exit_code", 130)
    end(ranks)
    click.get_current_context().exit(code)


def end(ranks: Ranks | None) -> None:
    """Wait until all ranks are done: none may end before, since the others would be ended."""
    if ranks is not None:
        ranks.meet("waited for all to end")
        ranks.has_ended = True


def tell(text: str) -> str:
    """Return an error's message with this rank's name, when it is this rank's turn to tell; as it is without ranks.

    Ranks that fail together for one reason would all tell it. Each waits longer than the one before it, and is ended by
    the first one's end.
    """
    place = launched()
    if place is None:
        return text
    wait_for_turn(place.rank)
    return f"Error: rank {place.rank} of {place.size}: {text.removeprefix('Error: ')}"


def leave(code: int) -> None:
    """End all ranks with this one, unless they have ended together, or all is well."""
    if launched() is None or code == 0:
        return
    try:
        ranks = joined()
    except UserError:
        ranks = None
    time.sleep(READ)
    if ranks is None:
        os._exit(code)
    if not ranks.has_ended:
        ranks.abort(code)
