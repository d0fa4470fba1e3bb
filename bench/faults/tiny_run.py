"""Run ``xpnet train`` on a dozen images in a few milliseconds, and check that its files are complete."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy

from bench.faults.disk import Disk
from training.cli import main
from training.data import Dataset
from training.loop import checkpoint, figures, lock
from training.loop.run_folder import RunFolder
from training.models.loading import load_network

FIGURES = ("learning_curves", "confusion_matrix", "worst_mistakes", "filters")
FILES = (
    "checkpoints",
    "config.json",
    "config.toml",
    "metrics.jsonl",
    "model.safetensors",
    *(f"{name}.png" for name in FIGURES),
)
EPOCHS = 3
OPTIONS = ("--model", "TwoLayerNet", "--batch-size", "6", "--epochs", EPOCHS, "--device", "cpu", "--threads", "1")
DRAWN = b"a figure, whole"


@dataclass(frozen=True)
class Result:
    """The result of a command."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def tiny() -> Iterator[None]:
    """Replace the data set by a dozen images, and the figures by ones that take no time."""
    images = numpy.arange(24, dtype=numpy.uint8).reshape(12, 1, 1, 2)
    labels = (numpy.arange(12) % 3).astype(numpy.uint8)
    few = Dataset("mnist10k", ("a", "b", "c"), images, labels, images, labels)
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch("training.data.load", return_value=few))
        patches.enter_context(mock.patch.object(figures, "as_png", return_value=DRAWN))
        for name in FIGURES:
            patches.enter_context(mock.patch.object(figures, name, return_value=None))
        yield


def train(folder: Path) -> Result:
    """Run the command, inside ``tiny``."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    arguments = [str(argument) for argument in ("train", *OPTIONS, "--out", folder)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Result(code, out.getvalue(), err.getvalue())


class Models(Disk):
    """Disk that collects the contents of a model's file: the models that an undisturbed run writes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.contents: set[bytes] = set()

    def done(self, name: str, path: str, argument: Any) -> None:
        if name == "replace" and argument.endswith("model.safetensors"):
            self.contents.add(Path(argument).read_bytes())


def whole_models(place: Path) -> set[bytes]:
    """Return the content of every model that a run writes; all runs write the same."""
    with Models(place) as models:
        result = train(place / "whole")
    if result.code or sorted(path.name for path in (place / "whole").iterdir()) != sorted(FILES):
        raise AssertionError(f"the undisturbed run has failed: {result}")
    return models.contents


def check(path: Path, models: set[bytes]) -> list[str]:
    """Return what is wrong with the files in a run's folder."""
    if not path.exists():
        return []
    broken = [f"{file.name} is left" for file in path.iterdir() if file.name not in (*FILES, lock.NAME)]
    folder = RunFolder(path)
    try:
        if (path / "config.json").exists():
            folder.load_config()
        if folder.model.exists():
            load_network(folder.model)
            if folder.model.read_bytes() not in models:
                broken.append("the model is not one that the run writes")
        files = checkpoint.list_files(path / checkpoint.FOLDER)
        for file in files:
            checkpoint.read(file)
        broken += [f"{file.name} is left" for file in (path / checkpoint.FOLDER).glob("*") if file not in files]
        if (path / "metrics.jsonl").exists():
            epochs = [record["epoch"] for record in folder.load_metrics()]
            if epochs != list(range(1, len(epochs) + 1)):
                broken.append(f"the metrics are of epochs {epochs}")
            if epochs and not folder.model.exists():
                broken.append("there are metrics but no model")
    except (OSError, ValueError) as error:
        broken.append(str(error))
    broken += [f"{file.name} is torn" for file in path.glob("*.png") if file.read_bytes() != DRAWN]
    return broken
