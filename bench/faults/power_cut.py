"""Power cuts at every moment of a run: each file is the old one or the new one, and reported files exist."""

from __future__ import annotations

import functools
import random
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy

from bench.faults.disk import RecordingDisk
from training.loop.run_folder import RunFolder
from training.models import TwoLayerNet
from training.models.loading import load_network

EPOCHS = 3


def run(count: int, seed: int) -> Generator[str | None, None, None]:
    with tempfile.TemporaryDirectory() as place:
        recorded = record(Path(place, "runs"))
        states = list(recorded.power_cuts())
        random.Random(seed).shuffle(states)
        for number, (length, words, files) in enumerate(states[:count]):
            left = Path(place, f"left-{number}")
            broken = check(restore(recorded, files, left) / "run", recorded, length)
            shutil.rmtree(left, ignore_errors=True)
            yield broken and f"{words}: {broken}"


def record(root: Path, new_run: Callable[[Path], RunFolder] = RunFolder.create) -> RecordingDisk:
    """Record a run's writes, without its training. A note precedes and follows the writing of each file."""
    root.mkdir()
    network = TwoLayerNet(6, 4, 3)
    with RecordingDisk(root) as disk, new_run(root / "run") as folder:

        def step(name: str, content: Any, write: Callable[[], None]) -> None:
            disk.log.append(("note", "", ("begin", name, content)))
            write()
            disk.log.append(("note", "", ("end", name, content)))

        config = {"settings": {"seed": 0}}
        step("config", config, lambda: folder.save_config(config))
        for epoch in range(1, EPOCHS + 1):
            network.params.flat[...] = epoch
            step("model", epoch, lambda: folder.save_model(network))
            step("metrics", epoch, functools.partial(folder.add_metrics, {"epoch": epoch}))
    seen = {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}
    if seen != disk.final():
        raise AssertionError(f"files were written by operations that this module does not see: {sorted(seen)}")
    return disk


def restore(disk: RecordingDisk, files: dict[str, bytes | None], place: Path) -> Path:
    """Write the files of a state into the folder ``place``."""
    place.mkdir()
    for name in sorted(files):
        path = place / Path(name).relative_to(disk.folder)
        if not path.parent.is_dir():  # its folder is lost, with its content
            continue
        content = files[name]
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
    return place


def check(path: Path, disk: RecordingDisk, length: int) -> str | None:
    """Return what is wrong with a run after a cut, given the files that it had reported, or None."""
    notes = [argument for name, _, argument in disk.log[:length] if name == "note"]
    promised = {name: content for state, name, content in notes if state == "end"}
    begun = {name: content for state, name, content in notes if state == "begin"}
    folder, broken = RunFolder(path), []
    for name, read in (("config", _config), ("model", _model), ("metrics", _metrics)):
        try:
            found = read(folder)
        except (OSError, ValueError) as error:
            broken.append(f"{name} cannot be read: {error}")
            continue
        if found not in (promised.get(name), begun.get(name)):
            broken.append(f"{name} is {found}, promised was {promised.get(name)}")
    return "; ".join(broken) or None


def _config(folder: RunFolder) -> Any:
    return folder.load_config() if (folder.path / "config.json").exists() else None


def _model(folder: RunFolder) -> int | None:
    if not folder.model.exists():
        return None
    values = numpy.unique(load_network(folder.model).params.flat)
    return int(values[0]) if len(values) == 1 else -1


def _metrics(folder: RunFolder) -> int | None:
    if not (folder.path / "metrics.jsonl").exists():
        return None
    found = [record["epoch"] for record in folder.load_metrics()]
    return None if not found else found[-1] if found == list(range(1, len(found) + 1)) else -1
