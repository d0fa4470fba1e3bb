"""What a network says of labelled samples: its loss, its hits, and which samples it gets most wrong."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy

from backend import array_module, asnumpy, threads
from backend.checks import instance, whole
from kernels.labels import check as check_labels
from training.data import Loader
from training.loop.non_finite import NonFiniteError, in_evaluation
from training.models import Network


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers to N samples, in their order and on the host.

    Attributes:
        loss: mean cross-entropy.
        labels: the right classes, int (N,).
        predicted: the classes with the highest scores, int (N,).
        probabilities: softmax of the scores, floating (N, classes).

    Raises:
        TypeError: labels or predicted classes are not integers.
        ValueError: they do not fit the probabilities, or one is no class.
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
        """How many samples are classified right."""
        return int((self.predicted == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """The share of samples classified right."""
        return self.correct / len(self.labels)

    def confusion(self) -> numpy.ndarray:
        """How many samples of class i (rows) were taken for class j (columns): int64 (classes, classes)."""
        classes = self.probabilities.shape[1]
        pairs = self.labels.astype(numpy.int64) * classes + self.predicted
        return numpy.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def worst_mistakes(self, count: int) -> numpy.ndarray:
        """Indices of at most ``count`` misclassified samples, the least probability of the right class first."""
        count = whole("count", count, 0)
        wrong = numpy.flatnonzero(self.predicted != self.labels)
        right_probability = self.probabilities[wrong, self.labels[wrong]]
        return wrong[numpy.argsort(right_probability, kind="stable")[:count]]


def predict(network: Network, samples: Loader) -> Predictions:
    """Runs a network in evaluation mode over an unshuffled loader.

    Loss and hits are those of ``training.Trainer.evaluate`` to the last bit, given the same batches.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the samples do not fit the network, or a label is none of its classes.
        NonFiniteError: the loss is infinite or NaN; the message names the sample, parameter or layer it begins in.
        OutOfMemoryError: the loader's batches are too large.
    """
    instance("network", network, Network, "a Network")
    instance("samples", samples, Loader, "a Loader")
    samples.check_labels(network.classes)
    loss: Any = array_module(network.params.flat).zeros((), "float64")
    kept: list[tuple[Any, Any, Any]] = []
    within = network.within_memory(samples.largest_batch)
    with threads.single_threaded_blas(), within, closing(samples.epoch(0)) as batches:  # as in training: the same bits
        for x, t in batches:
            scores = network.predict(x)
            loss += network.last_layer.forward(scores, t) * len(t)
            kept.append((t, scores.argmax(axis=1), network.last_layer.y))
        mean = float(asnumpy(loss)) / samples.samples
        if not math.isfinite(mean):
            raise NonFiniteError(f"the loss is {mean}; {in_evaluation(network, samples, 'data')}")
    labels, predicted, probabilities = (
        numpy.concatenate([asnumpy(part) for part in parts]) for parts in zip(*kept, strict=True)
    )
    return Predictions(mean, labels, predicted, probabilities)
