"""The ranks of a training: who they are, and what they tell each other by MPI."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy

from backend import array_module, asarray, asnumpy, checks
from backend.types import Array
from training.distributed.launch import launched
from training.distributed.uncaught import end_all_where_uncaught

PATIENCE = 600.0
"""Seconds that a rank waits for the others, unless ``XPNET_RANKS_TIMEOUT`` says so."""

_POLLING = 0.002
"""Seconds that a wait asks again and again; a longer one sleeps in between."""

_PAUSE = 0.0002
_HERE = 77  # tag of the messages by which ranks say that they are there
_ANSWER = 1.0  # seconds in which they do


class RanksError(RuntimeError):
    """The ranks cannot go on together; the message names the rank that is the reason."""


class Ranks:
    """The processes that train one model together, by MPI.

    Nothing here waits without end: where other ranks do not come for ``patience`` seconds, ``RanksError`` names them.

    Args:
        world: the communicator, an ``mpi4py.MPI.Comm``; it is duplicated.
        patience: seconds to wait for other ranks.

    Attributes:
        rank, size: this process's number, from 0, and the number of processes.
        local_rank, local_size: the same among the processes on this machine.
        host: the machine's name.
        threads: how many threads this rank computes with: its share of the cores that it may run on, at least 1. Ranks
            that may run on the same cores share them; cores that a launcher has bound to one rank are all its own.
        has_ended: all ranks have said that they are done.
        count: how often this rank has waited for others, or its GPU was told to: equal on ranks that are equally far.
        latest_wait: when this rank last waited for the others, by ``time.monotonic``.

    Examples:
        >>> from training.distributed.communicator import Ranks
        >>> Ranks.join() is None  # this program was not started by mpirun
        True
    """

    def __init__(self, world: Any, patience: float | None = None) -> None:
        given = os.environ.get("XPNET_RANKS_TIMEOUT", str(PATIENCE)) if patience is None else patience
        try:
            seconds = float(given)
        except ValueError:
            raise checks.refusal(ValueError, "XPNET_RANKS_TIMEOUT", "a number of seconds", given) from None
        self.patience = checks.real("patience", seconds, least=0.1)
        from mpi4py import MPI

        self._mpi: Any = MPI
        self._comm = world.Dup()
        self.rank, self.size = int(world.rank), int(world.size)
        self.host = socket.gethostname()
        self.count, self.latest_wait = 0, 0.0
        places = self.gather((self.host, _cores()))
        hosts, own = [host for host, _ in places], places[self.rank][1]
        self.threads = _share(own, [cores for host, cores in places if host == self.host])
        self.local_rank, self.local_size = hosts[: self.rank].count(self.host), hosts.count(self.host)
        self.has_ended = False
        self._stop: tuple[Any, numpy.ndarray] | None = None

    @classmethod
    def join(cls) -> Ranks | None:
        """Return the ranks that a launcher such as mpirun has started this process among; None for a single process.

        From then on an exception that no rank's program handles ends all ranks.

        Raises:
            RanksError: mpi4py is not installed, or uses another MPI than the launcher's.
        """
        place = launched()
        if place is None:
            return None
        try:
            import mpi4py

            mpi4py.rc.thread_level = "serialized"
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise RanksError(
                f"rank {place.rank}: mpirun needs mpi4py and an MPI: install 'xpnet[distributed]' and mpich ({error})"
            ) from error
        if place.size != MPI.COMM_WORLD.size:
            library = MPI.Get_library_version().split("\n")[0].strip("\0 ")
            raise RanksError(
                f"the launcher started {place.size} processes, and mpi4py finds {MPI.COMM_WORLD.size}: it uses "
                f"{library}, another MPI than the launcher's; install one MPI, and start by its own mpirun"
            )
        ranks = cls(MPI.COMM_WORLD)
        end_all_where_uncaught(ranks)
        return ranks

    def start_sum(self, array: numpy.ndarray, compressed: bool = False) -> Any:
        """Start to sum a contiguous host array over all ranks, in place. Return a request for ``wait``.

        Args:
            compressed: the array is of float16, of which MPI knows nothing; each sum of two is rounded.
        """
        if not compressed:
            return self._comm.Iallreduce(self._mpi.IN_PLACE, array)
        kind = self._mpi.UINT16_T
        return self._comm.Iallreduce(self._mpi.IN_PLACE, [array.view("uint16"), kind], op=self._half_sum())

    def wait(self, requests: Sequence[Any], what: str) -> None:
        """Wait for requests.

        Raises:
            RanksError: other ranks did not take part in ``patience`` seconds.
        """
        requests, test = list(requests), self._mpi.Request.Testall
        begun = self.latest_wait = time.monotonic()
        self.count += 1
        while not test(requests):
            self.latest_wait = time.monotonic()
            waited = self.latest_wait - begun
            if waited > self.patience:
                raise RanksError(f"{self.who_is_missing()} for {self.patience:g} s, as the ranks {what}")
            if waited > _POLLING:
                time.sleep(_PAUSE)
            else:
                os.sched_yield()

    def test(self, requests: Sequence[Any]) -> None:
        """Let MPI make progress with requests under way."""
        self._mpi.Request.Testall(list(requests))

    def sum(self, array: numpy.ndarray, what: str) -> None:
        """Sum a contiguous host array over all ranks, in place."""
        self.wait([self.start_sum(array)], what)

    def largest(self, number: int, what: str) -> int:
        """Return the largest of the ranks' numbers."""
        given = numpy.array([number], "uint64")
        self.wait([self._comm.Iallreduce(self._mpi.IN_PLACE, given, op=self._mpi.MAX)], what)
        return int(given[0])

    def broadcast(self, array: Array, what: str) -> None:
        """Give all ranks the numbers of rank 0's array, on any device."""
        on_host = numpy.ascontiguousarray(asnumpy(array))
        raw = on_host.reshape(-1).view("uint8").copy()
        self.wait([self._comm.Ibcast(raw, 0)], what)
        array[...] = asarray(raw.view(on_host.dtype).reshape(array.shape))

    def gather(self, value: Any, what: str = "told each other about themselves") -> list[Any]:
        """Return the values of all ranks, in their order; anything that can be pickled."""
        own = numpy.frombuffer(pickle.dumps(value), "uint8")
        lengths = numpy.zeros(self.size, "int64")
        self.wait([self._comm.Iallgather(numpy.array([own.size], "int64"), lengths)], what)
        every = numpy.empty(int(lengths.sum()), "uint8")
        self.wait([self._comm.Iallgatherv(own, [every, lengths])], what)
        return [pickle.loads(part.tobytes()) for part in numpy.split(every, numpy.cumsum(lengths)[:-1])]

    def share(self, value: Any, what: str = "waited for rank 0") -> Any:
        """Return rank 0's value on all ranks; anything that can be pickled. Other ranks give None."""
        own = numpy.frombuffer(pickle.dumps(value), "uint8") if self.rank == 0 else numpy.empty(0, "uint8")
        length = numpy.array([own.size], "int64")
        self.wait([self._comm.Ibcast(length, 0)], what)
        sent = own.copy() if self.rank == 0 else numpy.empty(int(length[0]), "uint8")
        self.wait([self._comm.Ibcast(sent, 0)], what)
        return value if self.rank == 0 else pickle.loads(sent.tobytes())

    def own_range(self, count: int) -> tuple[int, int]:
        """Return first and end of the part that this rank has of ``count`` things."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def meet(self, what: str) -> None:
        """Wait until all ranks have come here."""
        self.wait([self._comm.Ibarrier()], what)

    def signal_to_stop(self, received: int, is_last: bool) -> int:
        """Tell the others of a signal that this process has received, 0 for none. Return one that any has, or 0.

        What is returned was told at the call before, so that no step waits for the slowest rank's; with ``is_last``
        also what is told now. It is the same on all ranks.
        """
        found, what = 0, "looked whether to stop"
        if self._stop is not None:
            request, told = self._stop
            self.wait([request], what)
            found, self._stop = int(told[0]), None
        if is_last:
            return max(found, self.largest(received, what))
        told = numpy.array([received], "uint64")
        self._stop = self._comm.Iallreduce(self._mpi.IN_PLACE, told, op=self._mpi.MAX), told
        return found

    def abort(self, code: int) -> None:
        """End all ranks at once, with an exit code."""
        self._mpi.COMM_WORLD.Abort(code)

    def _half_sum(self) -> Any:
        """Return the MPI operation that adds float16 numbers."""
        if not hasattr(self, "_added"):

            def add(given: Any, result: Any, kind: Any) -> None:
                numbers, total = (numpy.frombuffer(buffer, "float16") for buffer in (given, result))
                with numpy.errstate(over="ignore", invalid="ignore"):
                    numpy.add(total, numbers, out=total, dtype="float32", casting="same_kind")

            self._added = self._mpi.Op.Create(add, commute=True)
        return self._added

    def who_is_missing(self) -> str:
        """Return which ranks did not answer, or did not go on as far as others: all that wait tell each other so."""
        own = numpy.array([self.count], "int64")
        found, others = {self.rank: self.count}, [rank for rank in range(self.size) if rank != self.rank]
        for rank in others:
            self._comm.Isend(own, rank, _HERE)
        end = time.monotonic() + _ANSWER
        while time.monotonic() < end:
            for rank in [rank for rank in others if rank not in found and self._comm.Iprobe(rank, _HERE)]:
                given = numpy.empty(1, "int64")
                self._comm.Recv(given, rank, _HERE)
                found[rank] = int(given[0])
            time.sleep(_PAUSE)
        if missing := [rank for rank in others if rank not in found]:
            return f"rank {', '.join(map(str, missing))} did not answer rank {self.rank}"
        if behind := [rank for rank, count in found.items() if count < max(found.values())]:
            return f"rank {', '.join(map(str, sorted(behind)))} did not go on"
        return "the ranks do not agree on what to do next; they waited for each other"


def _cores() -> frozenset[int]:
    """Return the cores that this process may run on."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def _share(own: frozenset[int], every: Sequence[frozenset[int]]) -> int:
    """Return how many cores a process has where each core is shared by the processes that may run on it.

    Args:
        own: cores of the process.
        every: those of all processes on its machine.
    """
    parts = [Fraction(1, sum(core in cores for cores in every)) for core in own]
    return max(1, int(sum(parts)))


def on_host(array: Array) -> bool:
    """Return whether an array lies on the host."""
    return array_module(array) is numpy
