"""Processes that do a workload together, as one side of the bench."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from bench.ranks import launch
from bench.sides.base import Case, Side

LIMIT = 120.0
"""Seconds after which a process that has not answered is given up."""

WORKER = "bench.ranks.worker"


class TeamError(ValueError):
    """A process of a team failed."""


class Team(Side):
    """So many processes, with so many threads each; they end with the context.

    Args:
        name: for tables.
        side: what the processes are: "xpnet", "torch", "ranks" (xpnet by mpirun) or "ddp" (PyTorch's, with gloo).
        size: the number of processes.
        threads: of each.
        series: steps of a case's step, by the name of a workload: so many for each message.
    """

    def __init__(self, name: str, side: str, size: int, threads: int, series: dict[str, int]) -> None:
        self.name = name
        self._what = side, size, threads
        self._series = series
        self._streams: list[BinaryIO] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Team:
        """Start the processes.

        Raises:
            TeamError: one of them ended, or did not come within ``LIMIT`` seconds.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="xpnet-bench-")
        address = str(Path(self._folder.name) / "socket")
        _, size, _ = self._what
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(address)
                listener.listen(size)
                listener.settimeout(1.0)
                self._processes = [
                    subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
                    for command, environment in self._commands(address)
                ]
                found = sorted((self._accepted(listener) for _ in range(size)), key=lambda each: each[0])
        except BaseException:
            self.__exit__()
            raise
        self._streams = [stream for _, stream in found]
        return self

    def __exit__(self, *error: object) -> None:
        for stream in self._streams:
            with suppress(BrokenPipeError):
                stream.close()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def ways(self, operation: str, images: bool) -> tuple[str, ...]:
        return self._told("ways")[0]

    def training(self, workload: str, dropout: bool, way: str = "") -> Case:  # type: ignore[override]
        """Return the training of a workload, by its name. Without dropout a step is one step, for ``Case.values``."""
        self._told("make", workload, way, dropout)
        count = self._series[workload] if dropout else 1
        return Case(lambda: self._told("steps", count), lambda: self._told("values")[0])

    def _commands(self, address: str) -> list[tuple[list[str], dict[str, str]]]:
        side, size, threads = self._what
        arguments = [side, str(threads), address]
        if side == "ranks":
            return [(launch.mpirun(size, WORKER, *arguments), launch.environment(size))]
        command = [sys.executable, "-m", WORKER, *arguments]
        return [([*command, str(rank), str(size)], launch.environment(1)) for rank in range(size)]

    def _accepted(self, listener: socket.socket) -> tuple[int, BinaryIO]:
        """Return the rank and the stream of a process that connects."""
        for _ in range(int(LIMIT)):
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                codes = [process.poll() for process in self._processes]
                if any(code is not None for code in codes):
                    raise TeamError(f"{self.name}: a process ended with {max(code or 0 for code in codes)}") from None
                continue
            with connection:  # the stream keeps it open
                connection.settimeout(LIMIT)
                stream: Any = connection.makefile("rwb")
            return pickle.load(stream), stream
        raise TeamError(f"{self.name}: a process did not start within {LIMIT:g} s")

    def _told(self, command: str, *arguments: Any) -> list[Any]:
        """Send a command to all processes, and return their answers."""
        answers = []
        for stream in self._streams:
            with suppress(BrokenPipeError):  # told below, where the answer is missing
                stream.write(pickle.dumps((command, arguments)))
                stream.flush()
        for rank, stream in enumerate(self._streams):
            try:
                is_done, answer = pickle.load(stream)
            except (EOFError, OSError) as error:
                raise TeamError(f"{self.name}: process {rank} did not answer {command!r}: {error}") from error
            if not is_done:
                raise TeamError(f"{self.name}: process {rank}: {answer}")
            answers.append(answer)
        return answers
