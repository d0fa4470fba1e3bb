"""Kills of real trainings at any moment, half of them as the disk is full or read-only: a resume ends in the same bits.

Each trial starts ``xpnet train`` as a process and kills it: at a random time, or inside one of its writes. Then it goes
on by ``--resume``, perhaps with another kill, and the end is compared with that of an undisturbed run: parameters,
running statistics, optimizer, random positions, history, best model and the names of all files. As root the run lies on
a small file system that is really filled, or bound read-only; else a limit on the size of files stands for a full disk.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.faults.tiny_run import FILES
from training.files.sections import read_sections
from training.loop import checkpoint
from training.loop.run_folder import RunFolder

KINDS = {
    "single": ("--model", "TwoLayerNet", "--batch-size", "20", "--epochs", "4", "--checkpoint-every", "3"),
    "half": ("--model", "TwoLayerNet", "--batch-size", "16", "--precision", "fp16", "--epochs", "4",
             "--checkpoint-every", "5", "--keep-checkpoints", "1"),
    "dropout": ("--model", "DeepConvNet", "--batch-size", "60", "--optimizer", "adam", "--epochs", "2",
                "--checkpoint-every", "1"),
}  # fmt: skip
"""Trainings of less than a second, which write most of the time."""

PROGRAM = """
import os, signal, sys
from dataclasses import replace
from unittest import mock
from bench.faults import resumes, tiny_run
from bench.faults.disk import FailingDisk
from training import data
from training.cli import main
from training.loop import figures
digits = data.load("mnist10k")
few = replace(digits, **{f"{part}_{kind}": getattr(digits, f"{part}_{kind}")[:240]
                         for part in ("train", "test") for kind in ("images", "labels")})
drawings = [mock.patch.object(figures, name, return_value=None) for name in tiny_run.FIGURES]
for patch in (mock.patch("training.data.load", return_value=few),
              mock.patch.object(figures, "as_png", return_value=tiny_run.DRAWN), *drawings):
    patch.start()
folder, number = sys.argv[1], int(sys.argv[2])
if number >= 0:
    FailingDisk(folder, resumes.kill_here, number).__enter__()
print("begins", flush=True)
main(sys.argv[3:])
"""
"""Program that is ``xpnet``, on 240 images and with figures that take no time; it can kill itself inside a write."""

_STARTED = 20.0  # seconds to wait for a process at most, before it is said to hang
_MEGABYTES = 24


@dataclass
class Ended:
    """The end of a process."""

    code: int
    err: str


def run(count: int, seed: int) -> Generator[str | None, None, None]:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, _file_system(Path(name)) as is_mounted:
        place = Path(name)
        expected: dict[str, Any] = {}
        for number in range(count):
            kind = chance.choice(list(KINDS))
            if kind not in expected:
                folder = place / f"undisturbed-{kind}"
                start = time.monotonic()
                ended = _wait(_start(folder, ("--out", str(folder), *KINDS[kind])))
                if ended.code:
                    raise AssertionError(f"the undisturbed run has failed: {ended}")
                expected[kind] = time.monotonic() - start, what_is_left(folder)
                _remove(folder)
            seconds, left = expected[kind]
            trial = Trial(
                place / str(number), kind, ("disk", "folder", "", "")[number % 4], seconds, is_mounted, chance
            )
            broken = trial.attempt(left)
            _remove(trial.folder)
            yield broken and f"trial {number}, {kind}: {'; '.join(trial.story)}: {broken}"


def kill_here(name: str, argument: Any) -> None:
    """Kill this process in the middle of a write, or before another operation."""
    if name == "write":
        argument()
    os.kill(os.getpid(), 9)


def what_is_left(folder: Path) -> dict[str, Any]:
    """Return all that a run has left but times, and the state of NumPy's generator, which nothing here draws from."""
    newest = read_sections(checkpoint.find(folder))
    run = RunFolder(folder)
    state = {
        f"{section}/{name}": value if not hasattr(value, "tobytes") else value.tobytes()
        for section, entries in newest.items()
        for name, value in entries.items()
        if section != "config" and name not in ("seconds", "history", "result", "key", "numpy")
    }
    metrics = [
        {name: value for name, value in record.items() if name not in ("seconds", "images_per_second")}
        for record in run.load_metrics()
    ]
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {"files": names, "metrics": metrics, "model": run.model.read_bytes(), **state}


@dataclass
class Trial:
    """One training that is killed, perhaps twice, and goes on."""

    folder: Path
    kind: str
    fault: str
    seconds: float
    is_mounted: bool
    chance: random.Random

    def __post_init__(self) -> None:
        self.story: list[str] = []

    def attempt(self, expected: dict[str, Any]) -> str | None:
        """Kill and go on; return what is wrong with the end, or None."""
        begin = ("--out", str(self.folder), *KINDS[self.kind])
        options = begin
        for _ in range(self.chance.choice((1, 1, 2))):
            ended = self._killed(options)
            if "Traceback" in ended.err or (ended.code in (1, 2) and ended.err.count("\n") != 1):
                return f"it printed {ended.err!r}"
            if ended.code not in (0, 1, -9):
                return f"exit code {ended.code}: {ended.err!r}"
            has_begun = (self.folder / "config.json").exists() or checkpoint.list_files(self.folder / checkpoint.FOLDER)
            options = ("--resume", str(self.folder)) if has_begun else begin
        ended = _wait(_start(self.folder, options))
        if ended.code or ended.err:
            return f"the last resume ended with {ended}"
        found = what_is_left(self.folder)
        different = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        strays = sorted({Path(name).parts[0] for name in found["files"]} - set(FILES))
        return f"other {', '.join(different)}; strays {strays}" if different or strays else None

    def _killed(self, options: tuple[str, ...]) -> Ended:
        """Run a training until it is killed, or until the faulty disk has ended it."""
        in_write = not self.fault and self.chance.random() < 0.5
        number = self.chance.randrange(150) if in_write else -1
        with _start(self.folder, options, number) as process:
            if not in_write:
                assert process.stdout is not None
                process.stdout.readline()
                after = self.chance.uniform(0.0, self.seconds)
                time.sleep(after)
                self.story.append(f"killed after {after:.3f} s" + f" with a faulty {self.fault}" * bool(self.fault))
                with self._faulty(process):
                    if self.fault:
                        time.sleep(self.chance.choice((0.0, 0.005, 0.02, 0.1)))
                    process.kill()
                    return _wait(process)
            self.story.append(f"killed at operation {number}")
            return _wait(process)

    @contextmanager
    def _faulty(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Fill the disk, or make the run's folder read-only, as long as a ``with`` lasts."""
        if self.fault == "folder" and self.is_mounted and self.folder.is_dir():
            subprocess.run(["mount", "--bind", self.folder, self.folder], check=True)
            try:
                _refuse_writes(self.folder)
                yield
            finally:
                subprocess.run(["umount", "-l", self.folder], check=True)
        elif self.fault == "folder" and not self.is_mounted and os.getuid() and self.folder.is_dir():
            self.folder.chmod(0o555)
            yield
            self.folder.chmod(0o755)
        elif self.fault and self.is_mounted:
            ballast = self.folder.parent / "ballast"
            try:
                with suppress(OSError), ballast.open("wb", buffering=0) as stream:
                    while stream.write(b"\0" * 65536):
                        pass
                yield
            finally:
                ballast.unlink()
        elif self.fault:
            with suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (self.chance.choice((0, 5000)), -1))
            yield
        else:
            yield


def _start(folder: Path, options: tuple[str, ...], number: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(folder), str(number), "train", "--threads", "1", "--quiet", *options]
    environment = {**os.environ, "XPNET_DEVICE": "cpu"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _refuse_writes(mounted: Path) -> None:
    """Make a mounted folder read-only, which Linux does only while no file in it is open to write."""
    for _ in range(1000):
        done = subprocess.run(["mount", "-o", "remount,bind,ro", mounted], capture_output=True, text=True)
        if done.returncode == 0:
            return
        if "busy" not in done.stderr:
            break
        time.sleep(0.002)
    raise AssertionError(f"{mounted} cannot be made read-only: {done.stderr}")


def _wait(process: subprocess.Popen[str]) -> Ended:
    try:
        _, err = process.communicate(timeout=6 * _STARTED)
    except subprocess.TimeoutExpired:
        process.kill()
        return Ended(-1, "it did not end")
    return Ended(process.returncode, err)


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if folder.exists():
        folder.rmdir()


@contextmanager
def _file_system(place: Path) -> Iterator[bool]:
    """Mount a small file system at a place, where that is allowed; yield whether it was."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m", "xpnet-faults", str(place)]
    is_mounted = os.name == "posix" and os.getuid() == 0 and not subprocess.run(command, capture_output=True).returncode
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)
