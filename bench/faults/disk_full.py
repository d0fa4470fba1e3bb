"""Full disks at every operation of a training: one line, exit code 1, and complete files stay complete."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from bench.faults.disk import FailingDisk
from bench.faults.tiny_run import FILES, check, tiny, train, whole_models

ERRORS = ("ENOSPC", "EDQUOT", "EFBIG", "EIO")


def run(count: int, seed: int) -> Generator[str | None, None, None]:
    with tempfile.TemporaryDirectory() as name, tiny():
        place = Path(name)
        models = whole_models(place)
        operations = count_operations(place)
        trials = [
            (number, error, for_good) for number in range(operations) for error in ERRORS for for_good in (False, True)
        ]
        random.Random(seed).shuffle(trials)
        for index, (number, error, for_good) in enumerate(trials[:count]):
            broken = attempt(place / str(index), models, number, error, for_good)
            yield broken and f"{error} at operation {number}{' and from there on' * for_good}: {broken}"


def count_operations(place: Path) -> int:
    """Return the number of operations of an undisturbed run that could fail."""
    with FailingDisk(place, lambda name, argument: None) as disk:
        train(place / "counted")
    return disk.count


def attempt(folder: Path, models: set[bytes], number: int, error: str, for_good: bool) -> str | None:
    """Fill the disk at the Nth operation of a training; return what is wrong after that, or None."""
    with FailingDisk(folder.parent, failure(error), number, for_good):
        result = train(folder)
    broken = check(folder, models)
    if result.code == 0 and not result.err and sorted(path.name for path in folder.iterdir()) == sorted(FILES):
        return "; ".join(broken) or None  # an operation that nothing depends on, such as closing the lock's file
    lines = result.err.splitlines()
    if result.code != 1 or len(lines) != 1 or not lines[0].startswith(f"Error: {folder.parent}"):
        broken.append(f"exit code {result.code}, {result.err!r}")
    elif ";" in lines[0] and ("no model has been written" in lines[0]) == (folder / "model.safetensors").exists():
        broken.append(f"it says {lines[0]!r}")
    return "; ".join(broken) or None


def failure(name: str) -> Callable[[str, Any], None]:
    """Return a function that makes an operation fail; a write writes half of its bytes before."""
    number = getattr(errno, name)

    def fail(operation: str, argument: Any) -> None:
        if operation == "write":
            argument()
        if operation in ("open", "mkdir", "replace"):
            raise OSError(number, os.strerror(number), os.fspath(argument))
        raise OSError(number, os.strerror(number))

    return fail
