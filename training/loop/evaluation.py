"""Evaluate a network on labelled samples: loss, accuracy, confusion matrix and worst mistakes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy

from backend import array_module, asnumpy, profiling, random, threads
from backend.checks import instance, whole
from backend.types import Array
from kernels.labels import check as check_labels
from training.data import Loader
from training.data.as_loader import as_loader
from training.loop.epoch_table import results_html
from training.loop.non_finite import NonFiniteError, in_evaluation
from training.models.accuracy import right_count
from training.models.metric import Metric, rows_of
from training.models.metrics import as_metrics, values_of
from training.models.network import Network

if TYPE_CHECKING:
    from training.distributed.communicator import Ranks

EVALUATE = profiling.Range("evaluate", "evaluate")


@dataclass(frozen=True)
class Evaluation:
    """Results of a network over a set of samples.

    Attributes:
        loss: the mean loss.
        accuracy: the share of samples, steps, pixels or labels that are decided right; NaN for a network that predicts
            numbers.
        metrics: results of further metrics by name.
    """

    loss: float
    accuracy: float
    metrics: dict[str, Any] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        return results_html(self.loss, self.accuracy, self.metrics)


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's answers to N samples, in their order and on the host.

    Attributes:
        loss: mean cross-entropy.
        labels: the right classes, int (N,).
        predicted: the classes with the highest scores, int (N,).
        probabilities: softmax of the scores, floating (N, classes).
        metrics: results of the metrics that were asked for, by name.

    Raises:
        TypeError: labels or predicted classes are not integers.
        ValueError: they do not fit the probabilities, or a class is out of range.
    """

    loss: float
    labels: numpy.ndarray
    predicted: numpy.ndarray
    probabilities: numpy.ndarray
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for classes in (self.labels, self.predicted):
            check_labels(classes, self.probabilities.shape, distributions=False)

    def _repr_html_(self) -> str:
        return results_html(self.loss, self.accuracy, self.metrics)

    @property
    def correct(self) -> int:
        """Number of samples that are classified right."""
        return int((self.predicted == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Fraction of samples that are classified right."""
        return self.correct / len(self.labels)

    def confusion(self) -> numpy.ndarray:
        """Return the numbers of samples of class i (rows) taken for class j (columns): int64 (classes, classes)."""
        classes = self.probabilities.shape[1]
        pairs = self.labels.astype(numpy.int64) * classes + self.predicted
        return numpy.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def worst_mistakes(self, count: int) -> numpy.ndarray:
        """Return indices of at most ``count`` misclassified samples, the least probability of the right class first."""
        count = whole("count", count, 0)
        wrong = numpy.flatnonzero(self.predicted != self.labels)
        right_probability = self.probabilities[wrong, self.labels[wrong]]
        return wrong[numpy.argsort(right_probability, kind="stable")[:count]]


def evaluate(
    network: Network,
    samples: Loader | Iterable[Any],
    after_batch: Callable[[Array, Array], None] | None = None,
    generator: random.Generator | None = None,
    metrics: Iterable[str | Metric] = (),
    ranks: Ranks | None = None,
) -> Evaluation:
    """Return the mean loss, the accuracy and the metrics of a network in evaluation mode over all samples of a loader.

    All is added up on the device, which is waited for once, at the end.

    Args:
        samples: a ``Loader``, or ``(x, t)`` batches that can be gone through again.
        after_batch: called with the scores and targets of each batch, on the device; or None.
        generator: drawn from by layers that draw even in evaluation mode; None means the current one.
        metrics: metrics, or names of them, as ``training.models.metrics.as_metrics`` takes them.
        ranks: the processes that share the batches; all get the result. Loss and accuracy have the bits of one process.

    Raises:
        TypeError: the samples are none of these, or a metric is neither a metric nor a name.
        ValueError: the samples do not fit the network, a target is not one that its loss takes, or a metric does not
            measure such networks.
        OutOfMemoryError: the loader's batches are too large.
    """
    samples = as_loader("samples", samples, network)
    last = network.last_layer
    metrics = as_metrics(metrics, last, network.classes)
    # For each batch its loss, the weight of that, right ones, samples.
    totals = array_module(network.params.flat).zeros((len(samples), 4), "float64")
    first, end = (0, len(samples)) if ranks is None else ranks.own_range(len(samples))
    figures: list[Any] = [None] * len(metrics)
    within = network.within_memory(samples.largest_batch)
    # BLAS as in training, for the same bits.
    with threads.single_threaded_blas(), EVALUATE, within, closing(samples.epoch(0, first)) as batches:
        for of_batch, (x, t) in zip(totals[first:end], batches, strict=False):  # those after the last are not asked for
            with random.using(generator or random.current()):
                scores = network.predict(x)
            of_batch[0] = last.forward(scores, t) * last.weight
            of_batch[1] = last.weight
            rows = rows_of(last, scores, t)
            of_batch[2] = right_count(last, *rows)
            of_batch[3] = last.samples(rows[1])
            for place, metric in enumerate(metrics):
                sums = metric.sums(last, scores, t)
                figures[place] = sums if figures[place] is None else metric.merged(figures[place], sums)
            if after_batch is not None:
                after_batch(scores, t)
    by_batch = asnumpy(totals)
    if ranks is not None:
        ranks.sum(by_batch, "evaluated")
        figures = _merged(metrics, ranks.gather([None if each is None else asnumpy(each) for each in figures]))
    loss, weight, correct, counted = map(float, numpy.add.accumulate(by_batch)[-1])  # one batch after the other
    return Evaluation(
        loss / weight if weight else 0.0, correct / counted if counted else math.nan, values_of(metrics, figures)
    )


def _merged(metrics: Sequence[Metric], by_rank: list[list[Any]]) -> list[Any]:
    """Return the figures of metrics over all ranks, of which some may have had no batch."""
    merged: list[Any] = []
    for metric, figures in zip(metrics, zip(*by_rank, strict=True), strict=True):
        given = [each for each in figures if each is not None]
        merged.append(functools.reduce(metric.merged, given) if given else None)
    return merged


def predict(network: Network, samples: Loader | Iterable[Any], metrics: Iterable[str | Metric] = ()) -> Predictions:
    """Run a network in evaluation mode over an unshuffled loader, and keep its answer for every sample.

    ``samples`` and ``metrics`` are those of ``evaluate``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the samples do not fit the network, a label is not one of its classes, or it does not predict one
            class of each sample.
        NonFiniteError: the loss is infinite or NaN; the message names the sample, parameter or layer it begins in.
        OutOfMemoryError: the loader's batches are too large.
    """
    instance("network", network, Network, "a Network")
    samples = as_loader("samples", samples, network)
    if network.last_layer.target_kind != "classes":
        raise ValueError(f"a network with {type(network.last_layer).__name__} predicts no classes; use evaluate")
    if network.has_places:
        raise ValueError(
            f"a network that makes {network.output_dim} of a sample predicts no one class for it; use evaluate, or "
            "Network.predict for its scores"
        )
    kept: list[tuple[Array, Array, Array]] = []

    def keep(scores: Array, t: Array) -> None:
        kept.append((t, scores.argmax(axis=1), network.last_layer.predictions(scores)))

    result = evaluate(network, samples, keep, metrics=metrics)
    loss = result.loss
    if not math.isfinite(loss):
        raise NonFiniteError(f"the loss is {loss}; {in_evaluation(network, samples, 'data')}")
    labels, predicted, probabilities = (
        numpy.concatenate([asnumpy(part) for part in parts]) for parts in zip(*kept, strict=True)
    )
    return Predictions(loss, labels, predicted, probabilities, result.metrics)
