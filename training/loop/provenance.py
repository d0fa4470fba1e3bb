"""Describe how a run was made: its settings, versions and machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy

from backend import Device, inspect_cuda
from backend.devices import describe_blas
from kernels.core import native
from training.data import Data
from training.loop.settings import Settings
from training.loop.trainer import Trainer


def describe(
    settings: Settings,
    trainer: Trainer,
    data: Data,
    data_dir: Path | None,
    device: Device,
    no_gpu: str,
    threads: int,
) -> dict[str, Any]:
    """Return the contents of ``config.json``: enough to repeat the run, and the machine that it ran on."""
    gpu = next((gpu for gpu in inspect_cuda().gpus if gpu.index == device.index), None)
    on_gpu = device.kind == "cuda" and gpu is not None
    return {
        "settings": {
            **asdict(settings),
            "lr": trainer.optimizer.lr,
            "weight_decay": trainer.optimizer.weight_decay,
            "data_dir": data_dir and os.path.abspath(data_dir),
        },
        "model": _without_numbers(trainer.network.config or {}),
        "samples": {part: len(samples) for part, samples in data.parts.items()},
        "device": {
            "name": device.name,
            "model": gpu.model if on_gpu and gpu else None,
            "no_gpu": no_gpu,
        },
        "threads": threads,
        "blas": describe_blas(),
        "kernels": native.library().processor if native.available() else "NumPy",
        "versions": {
            "xpnet": own_version(),
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "cupy": inspect_cuda().cupy_version or None,
        },
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _without_numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's config without the description of its training images, which has thousands of numbers."""
    about_input = {key: value for key, value in config.get("input", {}).items() if key != "likeness"}
    return {**config, "input": about_input} if about_input else dict(config)


def own_version() -> str:
    """Return xpnet's version, or a note if it runs from its source without being installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version("xpnet")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
