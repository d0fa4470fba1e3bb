"""A process of a team: ``python -m bench.ranks.worker SIDE THREADS ADDRESS [RANK SIZE]``.

It does what the bench sends over a socket, and sleeps until then: a rank that waited in MPI would take a core from the
team whose turn it is.
"""

from __future__ import annotations

import pickle
import socket
import sys
from typing import Any, BinaryIO, cast

from backend import use
from bench import sides
from bench.measure import thread_limit
from bench.sides.base import Case, Side
from bench.workloads import workloads


def _side(name: str, address: str, place: list[str]) -> Side:
    if name == "ranks":
        from bench.ranks.xpnet_ranks import XpnetRanks

        return XpnetRanks()
    if name == "ddp":
        from bench.ranks.torch_ddp import TorchDdp

        rank, size = map(int, place)
        return TorchDdp(rank, size, f"{address}.store")
    return sides.load(name)


class Worker:
    """A side and the work that it has at hand; a public method is a command of the bench."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._case: Case | None = None

    def ways(self) -> tuple[str, ...]:
        """Return the ways in which the side can train on images."""
        return self._side.ways("training", images=True)

    def make(self, name: str, way: str, dropout: bool) -> None:
        """Make the work of a workload."""
        workload = next(each for each in workloads() if each.name == name)
        self._case = workload.case(self._side, way, dropout=dropout)

    def steps(self, count: int) -> None:
        """Do so many steps of the work."""
        case = cast("Case", self._case)
        with case.inside():
            for _ in range(count):
                case.step()

    def values(self) -> dict[str, Any]:
        """Return the values of the latest step."""
        return cast("Case", self._case).values()


def serve(worker: Worker, stream: BinaryIO) -> None:
    """Do what comes, until the other side closes. Each answer is ``(True, value)``, or ``(False, message)``."""
    while True:
        try:
            name, arguments = pickle.load(stream)
        except EOFError:
            return
        try:
            answer = True, getattr(worker, name)(*arguments)
        except Exception as error:  # told to the bench, which ends with it
            answer = False, f"{type(error).__name__}: {error}"
        pickle.dump(answer, stream)
        stream.flush()


if __name__ == "__main__":
    name, count, address, *place = sys.argv[1:]
    use("cpu")
    side = _side(name, address, place)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    with connection, connection.makefile("rwb") as stream, thread_limit(int(count), [side]):
        pickle.dump(getattr(side, "rank", 0), stream)
        stream.flush()
        serve(Worker(side), cast("BinaryIO", stream))
