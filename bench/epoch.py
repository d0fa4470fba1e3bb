"""Time a whole epoch of ``xpnet train``, and the share of it that the steps alone take."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from backend import random, threads
from bench import timing
from bench.measure import thread_limit
from training.cli.console import Console
from training.cli.run import train
from training.data import Dataset, load
from training.loop.recipe import build_trainer
from training.loop.recorder import Recorder
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings
from training.loop.trainer import Trainer


def measure_epoch(count: int, repeats: int, seconds: float) -> dict[str, Any]:
    """Train the default model for one epoch, in turn with the same steps on prepared batches, several times.

    The data is full MNIST if ``XPNET_DATA_DIR`` names its folder, else mnist10k. Shares are of the whole epoch, which
    includes the evaluation on the test images and the saving of the model; ``loop_share`` is that of the loader and of
    the loop around the step. ``pressure`` is the share of the time in which some thread waited for a CPU, as the
    loader's thread does if all cores compute.

    Args:
        repeats, seconds: at most ``repeats`` pairs; none starts after ``seconds``.

    Raises:
        RuntimeError: the bare steps did not end with the same parameters, bit for bit.
    """
    data = load("mnist" if os.environ.get("XPNET_DATA_DIR") else "mnist10k")
    settings = Settings(dataset=data.name, epochs=1, schedule="constant")
    pairs: list[tuple[float, float, float]] = []
    start, waited = time.perf_counter(), timing.waited()
    with thread_limit(count, []):
        while len(pairs) < repeats and (not pairs or time.perf_counter() - start < seconds):
            bare, bare_parameters = _bare_steps(settings, data)
            whole, loop, parameters = _epoch(settings, data)
            if not np.array_equal(bare_parameters, parameters):
                raise RuntimeError("the bench's own steps gave other parameters than the training loop")
            pairs.append((bare, loop, whole))
    seconds_waited = None if waited is None else (timing.waited() or 0.0) - waited
    pressure = None if seconds_waited is None else seconds_waited / (time.perf_counter() - start)
    bare, loop, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    images = len(data.train_labels)
    return {
        "dataset": data.name,
        "model": settings.model_for(data.input_dim),
        "batch_size": settings.batch_size,
        "threads": count,
        "epochs": len(pairs),
        "seconds": whole,
        "images_per_second": images / whole,
        "images_per_second_without_evaluation": images / loop,
        "step_share": bare / whole,
        "loop_share": (loop - bare) / whole,
        "evaluation_share": (whole - loop) / whole,
        "loop_over_step": loop / bare - 1,
        "pressure": pressure,
    }


def _epoch(settings: Settings, data: Dataset) -> tuple[float, float, np.ndarray]:
    """Return the seconds of an epoch of the command, those without evaluation, and the parameters."""
    trainer = build_trainer(settings, data.as_data())
    with tempfile.TemporaryDirectory() as folder:
        report = Console(quiet=True, as_json=False)
        with RunFolder.create(Path(folder) / "run") as run:
            start = time.perf_counter()
            train(trainer, Recorder(run, lambda result, metrics: report.epoch(result, 1, metrics)), report)
            whole = time.perf_counter() - start
    loop = trainer.train_loader.samples / trainer.history[0].images_per_second
    return whole, loop, trainer.network.params.flat


def _bare_steps(settings: Settings, data: Dataset) -> tuple[float, np.ndarray]:
    """Return the seconds of the same steps without loader and loop, and the parameters."""
    trainer: Trainer = build_trainer(settings, data.as_data())
    network, optimizer = trainer.network, trainer.optimizer
    batches = list(trainer.train_loader.epoch(0))
    with threads.single_threaded_blas(), random.using(trainer.random):  # as the loop draws
        start = time.perf_counter()
        for x, t in batches:
            network.step_gradients(x, t)
            optimizer.update(network.params, network.grads)
        return time.perf_counter() - start, network.params.flat
