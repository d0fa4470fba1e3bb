"""Base class of the metrics, and the figures that they share.

A metric has ``sums``, the figures of a batch as one array on the device; ``merged``, which joins them with those of the
batches before; and ``value``, which makes the result of them on the host. Nothing waits for the device before the end.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy

from backend import array_module
from backend.types import Array
from kernels import targets
from layers import Loss
from layers.places import as_rows


class Metric:
    """Base class of the metrics. One object serves any number of evaluations: it keeps nothing of them.

    Attributes:
        name: what the result is called.
        kinds: the ``Loss.target_kind`` of the losses whose networks it measures.
    """

    name: str
    kinds: ClassVar[tuple[str, ...]]

    def sums(self, loss: Loss, scores: Array, t: Array) -> Array:
        """Return the figures of a batch, float64 on the device; ``scores`` and ``t`` are what the loss takes."""
        raise NotImplementedError

    def merged(self, total: Array, sums: Array) -> Array:
        """Return the figures of two sets of samples together."""
        return total + sums

    def value(self, total: numpy.ndarray) -> Any:
        """Return the result: a float, or nested lists or a dictionary of floats."""
        raise NotImplementedError

    def check(self, loss: Loss, outputs: int) -> None:
        """Raise a ValueError unless the metric measures networks with that loss and number of outputs."""
        if loss.target_kind not in self.kinds:
            raise ValueError(
                f"metric {self.name!r} measures predicted {' or '.join(self.kinds)}; a network with "
                f"{type(loss).__name__} predicts {loss.target_kind}"
            )


def rows_of(loss: Loss, scores: Array, t: Array) -> tuple[Array, Array]:
    """Return scores (N, outputs) and targets of samples; for a loss that takes them, steps and pixels as samples.

    Raises:
        ValueError: the targets are of another shape than such scores need.
    """
    return as_rows(scores, t) if loss.takes_places and scores.ndim in (3, 4) else (scores, t)


def decisions(loss: Loss, scores: Array) -> Array:
    """Return which classes or labels the scores decide for: bool (N, outputs)."""
    if loss.target_kind == "labels":
        return scores > 0
    library = array_module(scores)
    return scores.argmax(axis=1)[:, None] == library.arange(scores.shape[1])


def truth_of(loss: Loss, scores: Array, t: Array) -> Array:
    """Return which classes or labels are right: bool (N, outputs); no class where a sample does not count."""
    library = array_module(scores)
    if loss.target_kind == "labels":
        return targets.as_outputs(t, wide(scores)) > 0.5
    truth = (t if t.ndim == 1 else t.argmax(axis=1))[:, None] == library.arange(scores.shape[1])
    counted = loss.counted(t)
    return truth if counted is None else truth & counted[:, None]


def wide(scores: Array) -> Array:
    """Return scores as float64."""
    return scores.astype("float64", copy=False)


def stacked(*figures: Any) -> Array:
    """Return figures, arrays of one shape on the device or numbers, as one float64 array."""
    like = next(figure for figure in figures if hasattr(figure, "ndim"))
    library = array_module(like)
    out = library.empty((len(figures), *like.shape), "float64")
    for place, figure in enumerate(figures):
        out[place] = figure
    return out


def ratio(part: Any, total: Any) -> float:
    """Return the quotient, or NaN where the total is 0."""
    return float(part / total) if total else float("nan")
