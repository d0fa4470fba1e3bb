"""The folder of a training run: its settings, its metrics as they come, its best model, its figures."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from training import saving
from training.models import build
from training.network import Network

RUNS = Path("runs")
"""Where runs are kept unless a folder is named: below the current folder."""


class RunFolder:
    """A folder with ``config.json``, ``metrics.jsonl``, ``model.safetensors`` and figures.

    Made by :meth:`create` for a new run; an existing one is opened by its path.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path | None = None, *, name: str = "run", root: str | Path = RUNS) -> RunFolder:
        """Makes the folder ``path``, or ``root/YYYYmmdd-HHMMSS-name``; one that exists gets a number after it.

        Raises:
            FileExistsError: ``path`` is a file, or a folder that is not empty.
            OSError: it cannot be made.
        """
        if path is not None:
            folder = Path(path)
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise FileExistsError(f"{folder} exists and is not an empty folder; a run needs a new one")
            folder.mkdir(parents=True, exist_ok=True)
            return cls(folder)
        base = Path(root) / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
        base.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            break
        return cls(folder)

    @classmethod
    def newest(cls, root: str | Path = RUNS) -> RunFolder:
        """The run below ``root`` whose model was written last.

        Raises:
            FileNotFoundError: none has a model.
        """
        models = [path / "model.safetensors" for path in Path(root).glob("*/")]
        models = [model for model in models if model.is_file()]
        if not models:
            raise FileNotFoundError(f"no run with a model in {root}/: train one first")
        return cls(max(models, key=lambda model: (model.stat().st_mtime_ns, model.parent.name)).parent)

    @property
    def model(self) -> Path:
        """The file of the best model so far."""
        return self.path / "model.safetensors"

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Writes ``config.json``."""
        (self.path / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def load_config(self) -> dict[str, Any]:
        """What :meth:`save_config` wrote."""
        return json.loads((self.path / "config.json").read_text(encoding="utf-8"))

    def add_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Adds a line to ``metrics.jsonl``; it is on disk when this returns."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json_line(metrics) + "\n")

    def load_metrics(self) -> list[dict[str, Any]]:
        """What :meth:`add_metrics` wrote."""
        text = (self.path / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def save_model(self, network: Network) -> None:
        """Writes ``model.safetensors``, atomically, with the network's ``config`` in its header."""
        network.save_params(self.model)

    def figure(self, name: str) -> Path:
        """The file of a figure."""
        return self.path / f"{name}.png"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"


def load_network(file: str | Path) -> Network:
    """The network of a ``.safetensors`` file, on the active device.

    Its ``config`` is all that was saved with it: ``xpnet train`` adds ``dataset``, ``classes`` (names) and
    ``input_dim``, the shape (C, H, W) of an image, to the model and its arguments.

    Raises:
        ValueError: the file is damaged, has no model's description in it, or does not fit it.
        OSError: it cannot be read.
    """
    config = saving.load_config(file)
    if not isinstance(config, dict):
        raise ValueError(f"{file} does not say which model it is: it was not saved by xpnet")
    network = build(config)
    network.load_params(file)
    network.config = config
    return network


def json_line(record: Mapping[str, Any]) -> str:
    """A flat record as one line of JSON. JSON has no NaN and no infinity: they become null."""
    return json.dumps({key: None if _not_finite(value) else value for key, value in record.items()}, allow_nan=False)


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
