"""Collect what a run's folder and its data say about the run; what is missing is said, not an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy

from backend import asnumpy
from backend.types import Array
from training.data import Data, Loader
from training.files.errors import shortened
from training.files.opening import not_a_link
from training.loop.evaluation import Evaluation, Predictions, evaluate
from training.loop.non_finite import NonFiniteError
from training.loop.recipe import loader_for, measure, target_normalization_of
from training.loop.run_folder import RunFolder, read_object
from training.loop.settings import EVALUATION_BATCH
from training.models import Network
from training.models.loading import load_network

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Numbers:
    """A network's predicted numbers and the true ones, float64 (N, numbers) in their units, the loss, and R²."""

    loss: float
    r2: float
    predicted: numpy.ndarray
    true: numpy.ndarray

    @property
    def mae(self) -> float:
        """The mean absolute error, in the unit of the numbers."""
        return float(numpy.abs(self.predicted - self.true).mean())


@dataclass
class Findings:
    """Configuration, results and predictions of a run.

    Attributes:
        folder: of the run.
        config: of ``config.json``; empty if there is none.
        metrics: of ``metrics.jsonl``, one record an epoch.
        network: of ``model.safetensors``.
        data: what it was trained on.
        part: the part of the data that was evaluated for this report.
        answers: the network's answers to that part; of labels, how good they are.
        search: of ``learning_rates.json``, where ``xpnet train --find-lr`` has looked for a learning rate.
        profile: of ``profile.json``, where ``xpnet profile --run`` has profiled the run's training.
        missing: what could not be had, as sentences.
    """

    folder: RunFolder
    config: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    network: Network | None = None
    data: Data | None = None
    part: str = ""
    answers: Predictions | Numbers | Evaluation | None = None
    search: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: RunFolder, load_data: Callable[[Network], Data], allow_import: bool = False) -> Findings:
        """Read a run's folder, load its data, and evaluate its model on them.

        Args:
            load_data: returns the data that the network was trained on; its OSError or ValueError becomes a sentence in
                ``missing``.
            allow_import: as for ``load_network``.

        Raises:
            FileNotFoundError: the folder has neither configuration, metrics nor model.
        """
        found = cls(folder)
        files = (folder.path / "config.json", folder.path / "metrics.jsonl", folder.model)
        if not any(file.is_file() for file in files):
            raise FileNotFoundError(
                f"{folder.path} has no config.json, metrics.jsonl or model: it is not the folder of a run"
            )
        found.config = found._try("configuration", folder.load_config) or {}
        if folder.searched.is_file():
            found.search = found._try("search for a learning rate", lambda: read_object(folder.searched)) or {}
            if not folder.model.exists():
                return found  # of a folder in which nothing was trained, nothing is missing
        if folder.profile.is_file():
            found.profile = found._try("profile", lambda: read_object(folder.profile)) or {}
        found.metrics = found._try("epochs", folder.load_metrics) or []
        network = found.network = found._try("model", lambda: load_network(not_a_link(folder.model), allow_import))
        if network is not None:
            found.data = found._try("data", lambda: load_data(network))
        if found.data is not None:
            found._evaluate(found.data, found.network)
        return found

    @property
    def has_ended(self) -> bool:
        """Return True if the run did all it should."""
        return "ended" in self.config

    @property
    def settings(self) -> dict[str, Any]:
        """The run's settings; empty if there are none."""
        settings = self.config.get("settings")
        return settings if isinstance(settings, dict) else {}

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Return (epoch, value) of a metric; NaN where a record has no number of this name."""
        return [(real(record.get("epoch")), real(record.get(name))) for record in self.metrics]

    @property
    def evaluated(self) -> str:
        """The part of the data that epochs were evaluated on: the prefix of its metrics, "val" or "test"."""
        return "val" if any("val_loss" in record for record in self.metrics) else "test"

    def _try(self, what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except FileNotFoundError as error:
            name = f"there is no file {error.filename}" if error.filename else str(error)
            self.missing.append(f"No {what}: {name}")
        except (OSError, ValueError, MemoryError, NonFiniteError) as error:
            self.missing.append(f"No {what}: {shortened(error)}")
        return None

    def _evaluate(self, data: Data, network: Network | None) -> None:
        """Evaluate the test part of a run that has ended; of another, the part that its epochs were evaluated on."""
        assert network is not None
        wanted = ["test", "val"] if self.has_ended else [self.evaluated, "val", "test"]
        part = next((part for part in wanted if part in data.parts), "train")
        samples = data.parts[part]

        def answers() -> Predictions | Numbers | Evaluation:
            loader = loader_for(network, samples, EVALUATION_BATCH)
            return predict_numbers(network, loader) if data.kind == "regression" else measure(network, loader)

        self.part, self.answers = part, self._try(f"results of the {part} data", answers)


def predict_numbers(network: Network, samples: Loader) -> Numbers:
    """Run a network that predicts numbers over an unshuffled loader, and keep its answer for every sample.

    Raises:
        ValueError: it predicts no numbers, or the samples do not fit it.
    """
    kept: list[tuple[numpy.ndarray, ...]] = []
    known = target_normalization_of(network)
    mean, std = (0.0, 1.0) if known is None else (numpy.array(known.mean), numpy.array(known.std))

    def keep(scores: Array, t: Array) -> None:
        kept.append(tuple(asnumpy(each).reshape(len(t), -1).astype("float64") * std + mean for each in (scores, t)))

    found = evaluate(network, samples, keep, metrics=["r2"])
    predicted, true = (numpy.concatenate(parts) for parts in zip(*kept, strict=True))
    return Numbers(found.loss, found.metrics["r2"], predicted, true)


def real(value: object) -> float:
    """Return a number of a file as a float, NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
