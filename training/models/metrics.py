"""Measures of a network's predictions over a data set, added up on the device batch by batch.

The samples of those of classes may be the steps of sequences, scores (N, T, classes) with labels (N, T), or pixels,
scores (N, classes, H, W) with labels (N, H, W), as of a U-Net.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy

from backend import array_module, asnumpy
from backend.checks import LARGEST_SIZE, instance, real, refusal, whole
from backend.types import Array
from kernels import targets
from kernels.gemm import matmul
from layers import Loss
from training.models.accuracy import right_count
from training.models.metric import Metric, decisions, ratio, rows_of, stacked, truth_of, wide


@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of samples whose highest score is at their class, or of labels that are decided right."""

    name = "accuracy"
    kinds = ("classes", "labels")

    def sums(self, loss: Loss, scores: Array, t: Array) -> Array:
        scores, t = rows_of(loss, scores, t)
        return stacked(right_count(loss, scores, t), loss.samples(t))

    def value(self, total: numpy.ndarray) -> float:
        return ratio(total[0], total[1])


@dataclass(frozen=True)
class TopK(Metric):
    """Share of samples whose class is among the ``k`` highest scores; of equal scores the first class counts first."""

    k: int = 5
    kinds = ("classes",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", whole("k", self.k, 1, LARGEST_SIZE))

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"top{self.k}"

    def check(self, loss: Loss, outputs: int) -> None:
        super().check(loss, outputs)
        if self.k > outputs:
            raise ValueError(f"metric {self.name!r} needs at least {self.k} classes, the network has {outputs}")

    def sums(self, loss: Loss, scores: Array, t: Array) -> Array:
        scores, t = rows_of(loss, scores, t)
        library, truth = array_module(scores), truth_of(loss, scores, t)
        of_label = library.where(truth, scores, 0).sum(axis=1, keepdims=True)
        ahead = ~(scores <= of_label)  # not ">": NaN is ahead of all
        earlier = library.cumsum(truth, axis=1) == 0
        rank = (ahead | ((scores == of_label) & earlier)).sum(axis=1)
        return stacked(((rank < self.k) & truth.any(axis=1)).sum(), loss.samples(t))

    def value(self, total: numpy.ndarray) -> float:
        return ratio(total[0], total[1])


@dataclass(frozen=True)
class PerClass(Metric):
    """Precision, recall and F1 of each class or label, as lists in a dictionary; NaN for a class without samples."""

    name = "per-class"
    kinds = ("classes", "labels")

    def sums(self, loss: Loss, scores: Array, t: Array) -> Array:
        scores, t = rows_of(loss, scores, t)
        decided, truth = decisions(loss, scores), truth_of(loss, scores, t)
        counted = loss.counted(t)
        if counted is not None:
            decided = decided & counted[:, None]
        return stacked((decided & truth).sum(axis=0), decided.sum(axis=0), truth.sum(axis=0))

    def value(self, total: numpy.ndarray) -> Any:
        right, decided, there = total
        with numpy.errstate(invalid="ignore", divide="ignore"):
            scores = {
                "precision": right / numpy.maximum(decided, 1),
                "recall": right / there,
                "f1": 2 * right / (decided + there),
            }
        return {name: numpy.where(there > 0, score, numpy.nan).tolist() for name, score in scores.items()}


@dataclass(frozen=True)
class _ClassMean(PerClass):
    def value(self, total: numpy.ndarray) -> float:
        known = [score for score in super().value(total)[self.name] if score == score]
        return float(numpy.mean(known)) if known else float("nan")


@dataclass(frozen=True)
class Precision(_ClassMean):
    """Mean precision of the classes that have samples: the share of decisions for a class that are right, 0 if none."""

    name = "precision"


@dataclass(frozen=True)
class Recall(_ClassMean):
    """Mean recall of the classes that have samples: the share of a class's samples that are found."""

    name = "recall"


@dataclass(frozen=True)
class F1(_ClassMean):
    """Mean F1 of the classes that have samples: the harmonic mean of precision and recall."""

    name = "f1"


@dataclass(frozen=True)
class IoU(PerClass):
    """Mean intersection over union (Jaccard index): a class's right samples by all that it has or that are given to it.

    The mean is that over the classes with a union.

    Examples:
        >>> import numpy
        >>> from layers import SoftmaxWithLoss
        >>> from training.models.metrics import IoU
        >>> scores, labels = numpy.eye(2)[[0, 0, 1, 1]], numpy.array([0, 1, 1, 1])
        >>> metric = IoU()
        >>> round(metric.value(metric.sums(SoftmaxWithLoss(), scores, labels)), 4)  # of 1/2 and 2/3
        0.5833
    """

    name = "iou"

    def value(self, total: numpy.ndarray) -> float:
        right, decided, there = total
        union = decided + there - right
        known = union > 0
        return float((right[known] / union[known]).mean()) if known.any() else float("nan")


_EXACT = 1 << 24
"""Whole numbers up to this one are float32."""


@dataclass(frozen=True)
class Confusion(Metric):
    """Numbers of samples of class i (rows) taken for class j (columns), as lists of whole numbers."""

    name = "confusion"
    kinds = ("classes",)

    def sums(self, loss: Loss, scores: Array, t: Array) -> Array:
        scores, t = rows_of(loss, scores, t)
        # Products of ones and zeros: exact in float32 for so many rows, and in any order of threads.
        truth, decided = (part.astype("float32") for part in (truth_of(loss, scores, t), decisions(loss, scores)))
        total = matmul(truth[:_EXACT].T, decided[:_EXACT]).astype("float64")
        for first in range(_EXACT, len(truth), _EXACT):
            own = slice(first, first + _EXACT)
            total += matmul(truth[own].T, decided[own])
        return total

    def value(self, total: numpy.ndarray) -> list[list[int]]:
        return total.astype("int64").tolist()


@dataclass(frozen=True)
class MeanAbsoluteError(Metric):
    """Mean of |prediction - target| over samples and numbers, times ``unit``: that of targets that were scaled."""

    unit: float = 1.0
    name = "mae"
    kinds = ("values",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", real("MeanAbsoluteError: unit", self.unit, above=0))

    def sums(self, loss: Loss, scores: Array, t: Array) -> Array:
        error = wide(scores) - targets.as_outputs(t, wide(scores))
        return stacked(array_module(error).absolute(error).sum(), error.size)

    def value(self, total: numpy.ndarray) -> float:
        return self.unit * ratio(total[0], total[1])


@dataclass(frozen=True)
class R2(Metric):
    """Coefficient of determination R² = 1 - Σ(t - y)² / Σ(t - mean of t)², the mean over the predicted numbers.

    It is 1 for perfect predictions and 0 for the mean of the targets. A number whose targets are all equal is left out;
    NaN if all are.
    """

    name = "r2"
    kinds = ("values",)

    def sums(self, loss: Loss, scores: Array, t: Array) -> Array:
        y = wide(scores)
        t = targets.as_outputs(t, y)
        mean = t.mean(axis=0)
        count = array_module(y).full_like(mean, len(t))
        return array_module(y).stack([count, mean, ((t - mean) ** 2).sum(axis=0), ((t - y) ** 2).sum(axis=0)])

    def merged(self, total: Array, sums: Array) -> Array:
        """Join means and squares as Chan, Golub and LeVeque (1983) do: Σt² - (Σt)² / n would cancel."""
        (n, mean, squares, residual), (m, other, more_squares, more_residual) = total, sums
        gap = other - mean
        joined = n + m, mean + gap * (m / (n + m)), squares + more_squares + gap * gap * (n * m / (n + m))
        return array_module(total).stack([*joined, residual + more_residual])

    def value(self, total: numpy.ndarray) -> float:
        _, _, squares, residual = total
        known = squares != 0
        return float((1 - residual[known] / squares[known]).mean()) if known.any() else float("nan")


_BY_NAME: dict[str, type[Metric]] = {
    kind.name: kind for kind in (Accuracy, Precision, Recall, F1, IoU, PerClass, Confusion, MeanAbsoluteError, R2)
}
NAMES = (*_BY_NAME, "top<k>")
"""The names that ``as_metrics`` accepts, "top<k>" with any number, as in "top5"."""


def as_metrics(given: Iterable[str | Metric], loss: Loss, outputs: int) -> tuple[Metric, ...]:
    """Return metrics, some of which may be given by their names, for a network with that loss and number of outputs.

    Raises:
        TypeError: one is neither a metric nor a string.
        ValueError: a name is unknown or occurs twice, or a metric does not measure such networks.

    Examples:
        >>> from layers import SoftmaxWithLoss
        >>> from training.models.metrics import as_metrics
        >>> as_metrics(["f1", "top3"], SoftmaxWithLoss(), outputs=10)
        (F1(), TopK(k=3))
    """
    if isinstance(given, str):
        given = [given]
    metrics = tuple(map(_as_metric, instance("metrics", given, Iterable, "a list of metrics")))
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise ValueError(f"metrics must differ, got {', '.join(names)}")
    for metric in metrics:
        metric.check(loss, outputs)
    return metrics


def values_of(metrics: Iterable[Metric], totals: Iterable[Any]) -> dict[str, Any]:
    """Return the results by the metrics' names; waits for the device."""
    return {metric.name: metric.value(asnumpy(total)) for metric, total in zip(metrics, totals, strict=True)}


def _as_metric(given: str | Metric) -> Metric:
    if isinstance(given, Metric):
        return given
    expected = f"a Metric or one of {', '.join(map(repr, NAMES))}"
    if not isinstance(given, str):
        raise refusal(TypeError, "metrics", expected, given)
    if top := re.fullmatch(r"top-?([1-9][0-9]{0,8})", given):
        return TopK(int(top[1]))
    if given not in _BY_NAME:
        raise refusal(ValueError, "metrics", expected, given)
    return _BY_NAME[given]()
