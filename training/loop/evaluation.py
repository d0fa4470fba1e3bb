"""Evaluate a network on labelled samples: loss, accuracy, confusion matrix and worst mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy

from backend import array_module, asnumpy, profiling, random, threads
from backend.checks import instance, whole
from backend.types import Array
from kernels.labels import check as check_labels
from training.data import Loader
from training.loop.non_finite import NonFiniteError, in_evaluation
from training.models.accuracy import correct_count
from training.models.network import Network

EVALUATE = profiling.Range("evaluate", "evaluate")


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's answers to N samples, in their order and on the host.

    Attributes:
        loss: mean cross-entropy.
        labels: the right classes, int (N,).
        predicted: the classes with the highest scores, int (N,).
        probabilities: softmax of the scores, floating (N, classes).

    Raises:
        TypeError: labels or predicted classes are not integers.
        ValueError: they do not fit the probabilities, or a class is out of range.
    """

    loss: float
    labels: numpy.ndarray
    predicted: numpy.ndarray
    probabilities: numpy.ndarray

    def __post_init__(self) -> None:
        for classes in (self.labels, self.predicted):
            check_labels(classes, self.probabilities.shape, distributions=False)

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
    samples: Loader,
    after_batch: Callable[[Array, Array], None],
    generator: random.Generator | None = None,
) -> tuple[float, float]:
    """Return mean loss and accuracy of a network in evaluation mode over all samples of a loader.

    Args:
        after_batch: called with the scores and labels of each batch, on the device.
        generator: drawn from by layers that draw even in evaluation mode; None means the current one.

    Raises:
        ValueError: the samples do not fit the network, or a label is not one of its classes.
        OutOfMemoryError: the loader's batches are too large.
    """
    samples.check_labels(network.classes)
    totals = array_module(network.params.flat).zeros(2, "float64")
    within = network.within_memory(samples.largest_batch)
    # BLAS as in training, for the same bits.
    with threads.single_threaded_blas(), EVALUATE, within, closing(samples.epoch(0)) as batches:
        for x, t in batches:
            with random.using(generator or random.current()):
                scores = network.predict(x)
            totals[0] += network.last_layer.forward(scores, t) * len(t)
            totals[1] += correct_count(scores, t)
            after_batch(scores, t)
    loss, correct = asnumpy(totals) / samples.samples
    return float(loss), float(correct)


def predict(network: Network, samples: Loader) -> Predictions:
    """Run a network in evaluation mode over an unshuffled loader, and keep its answer for every sample.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the samples do not fit the network, or a label is not one of its classes.
        NonFiniteError: the loss is infinite or NaN; the message names the sample, parameter or layer it begins in.
        OutOfMemoryError: the loader's batches are too large.
    """
    instance("network", network, Network, "a Network")
    instance("samples", samples, Loader, "a Loader")
    kept: list[tuple[Array, Array, Array]] = []

    def keep(scores: Array, t: Array) -> None:
        kept.append((t, scores.argmax(axis=1), network.last_layer.y))

    loss, _ = evaluate(network, samples, keep)
    if not math.isfinite(loss):
        raise NonFiniteError(f"the loss is {loss}; {in_evaluation(network, samples, 'data')}")
    labels, predicted, probabilities = (
        numpy.concatenate([asnumpy(part) for part in parts]) for parts in zip(*kept, strict=True)
    )
    return Predictions(loss, labels, predicted, probabilities)
