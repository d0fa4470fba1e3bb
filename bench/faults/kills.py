"""Kills at every operation of a training: the files are complete, and the next start removes temporary ones."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from bench.faults.disk import FailingDisk
from bench.faults.disk_full import count_operations
from bench.faults.tiny_run import check, tiny, train, whole_models
from training.files import leftovers
from training.loop import checkpoint
from training.loop.lock import FolderLock


def run(count: int, seed: int) -> Generator[str | None, None, None]:
    with tempfile.TemporaryDirectory() as name, tiny():
        place = Path(name)
        models = whole_models(place)
        trials = [(number, half) for number in range(count_operations(place)) for half in (False, True)]
        random.Random(seed).shuffle(trials)
        for index, (number, half) in enumerate(trials[:count]):
            broken = attempt(place / str(index), models, number, half)
            yield broken and f"killed at operation {number}{', half-way' * half}: {broken}"


def attempt(folder: Path, models: set[bytes], number: int, half: bool) -> str | None:
    """Kill a training at the Nth operation, a write before or in the middle of it; return what is wrong after that, or
    None."""
    child = os.fork()
    if child == 0:
        try:
            with FailingDisk(folder.parent, lambda name, argument: _kill(name, argument, half), number):
                train(folder)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    broken = [] if os.WIFSIGNALED(status) else [f"it ended with {status} and was not killed"]
    if folder.exists():
        leftovers.remove(folder)
        leftovers.remove(folder / checkpoint.FOLDER)
        broken += check(folder, models)
        FolderLock(folder).release()  # raises if the lock is not free
    return "; ".join(broken) or None


def _kill(name: str, argument: Any, half: bool) -> None:
    if half and name == "write":
        argument()
    os.kill(os.getpid(), signal.SIGKILL)
