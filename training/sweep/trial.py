"""Make one run of a sweep: ``xpnet train`` in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class TrialError(Exception):
    """A run failed. ``code`` is its exit code: 2 where the user has something to correct."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def run_trial(settings: Mapping[str, Any], folder: Path, goes_on: Callable[[dict[str, Any]], bool]) -> bool:
    """Train with settings, by their options' names, into a folder.

    A process of its own starts with no memory of the runs before, and can run out of it alone.

    Args:
        goes_on: called with each epoch, as ``xpnet train --json`` prints it; False ends the run.

    Returns:
        Whether the run went on to its end.

    Raises:
        TrialError: it failed.
    """
    command = [sys.executable, "-m", "training.cli", "train", *arguments(settings), "--json", "--out", str(folder)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", errors="replace") as process,
    ):
        try:
            for line in process.stdout or ():
                epoch = json.loads(line)
                if "epoch" in epoch and not goes_on(epoch):
                    process.terminate()  # it ends after a step; its folder is whole
                    return False
        except BaseException:
            process.terminate()
            raise
        if code := process.wait():
            errors.seek(0)
            raise TrialError(_reason(errors.read().decode(errors="replace"), code), code)
    return True


def arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as arguments of ``xpnet train``."""
    given = []
    for name, value in settings.items():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            text = str(each).lower() if isinstance(each, bool) else str(each)
            given.append(f"--set={name}={text}")
    return given


def _reason(errors: str, code: int) -> str:
    """Return the error of a command from what it printed."""
    lines = [line for line in errors.splitlines() if line.strip()]
    said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return (said or lines or [f"it ended with exit code {code}"])[-1]
