"""Kills and errors at system calls of a real training, by strace, if it is installed.

Unlike ``bench.faults.kills`` this covers every file that the process writes, by any library.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from pathlib import Path

from bench.faults.tiny_run import FILES
from training.files import leftovers
from training.loop import checkpoint, lock
from training.loop.run_folder import RunFolder
from training.models.loading import load_network

CALLS = ("openat", "write", "fsync", "rename", "mkdir", "unlink", "close", "ftruncate", "flock")
NEED_SPACE = ("write", "fsync", "rename", "mkdir")
TRAIN = (sys.executable, "-m", "training.cli", "train", "--model", "TwoLayerNet", "--epochs", "1", "--threads", "1")


def run(count: int, seed: int) -> Generator[str | None, None, None]:
    strace = shutil.which("strace")
    if strace is None:
        return
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        calls = _calls_of_the_run(strace, place / "undisturbed")
        trials = [(call, number, "signal=SIGKILL") for call, number in calls]
        trials += [
            (call, number, error)
            for call, number in calls
            if call in NEED_SPACE
            for error in ("error=ENOSPC", "error=EDQUOT")
        ]
        random.Random(seed).shuffle(trials)
        for index, (call, number, fault) in enumerate(trials[:count]):
            broken = attempt(strace, place / str(index), call, number, fault)
            yield broken and f"{fault} at {call} {number}: {broken}"


def attempt(strace: str, folder: Path, call: str, number: int, fault: str) -> str | None:
    """Kill a training or fail a call at the Nth system call of a name; return what is wrong after that, or None."""
    done = _strace(strace, folder, os.devnull, f"trace={call}", f"inject={call}:{fault}:when={number}")
    broken = []
    if "Traceback" in done.stderr or "Exception ignored" in done.stderr:
        broken.append(f"it printed {done.stderr!r}")
    if fault.startswith("error"):
        # 0: the call did not concern the run, but a line of output or a cache of matplotlib.
        if done.returncode not in (0, 1) or (done.returncode == 1 and done.stderr.count("\n") != 1):
            broken.append(f"exit code {done.returncode}: {done.stderr!r}")
        if done.returncode == 0 and sorted(os.listdir(folder)) != sorted(FILES):
            broken.append(f"exit code 0 with {os.listdir(folder)}")
    if folder.exists():
        leftovers.remove(folder)
        leftovers.remove(folder / checkpoint.FOLDER)
        broken += [f"{file.name} is left" for file in folder.iterdir() if file.name not in (*FILES, lock.NAME)]
        broken += _unreadable(RunFolder(folder))
    return "; ".join(broken) or None


def _calls_of_the_run(strace: str, folder: Path) -> list[tuple[str, int]]:
    """Return the system calls of an undisturbed run from the creation of its folder on, each with its number in the
    process."""
    with tempfile.NamedTemporaryFile("r", errors="replace") as log:
        _strace(strace, folder, log.name, f"trace={','.join(CALLS)}")
        lines = log.readlines()
    counts: Counter[str] = Counter()
    found, begun = [], False
    for line in lines:
        call = line.partition("(")[0]
        counts[call] += 1
        begun = begun or str(folder) in line
        if begun and call in CALLS:
            found.append((call, counts[call]))
    return found


def _strace(strace: str, folder: Path, output: str, *expressions: str) -> subprocess.CompletedProcess:
    options = [part for expression in expressions for part in ("-e", expression)]
    command = [strace, "-qq", "-o", output, *options, *TRAIN, "--out", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def _unreadable(folder: RunFolder) -> list[str]:
    broken = []
    try:
        if (folder.path / "config.json").exists():
            folder.load_config()
        if folder.model.exists():
            load_network(folder.model)
        if (folder.path / "metrics.jsonl").exists():
            folder.load_metrics()
    except (OSError, ValueError) as error:
        broken.append(str(error))
    pictures = folder.path.glob("*.png")
    return broken + [f"{file.name} is torn" for file in pictures if not file.read_bytes().endswith(b"IEND\xaeB`\x82")]
