"""What a network predicts of a picture or of a row, and how it is shown: in words, as JSON, and as cells of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from backend import asnumpy
from backend.types import Array
from training.files.printable import printable
from training.loop.recipe import target_normalization_of
from training.models import Network


class Prediction(NamedTuple):
    """The prediction of one sample.

    Attributes:
        ranking: classes with their probabilities, the likeliest first, or all labels; empty for numbers.
        numbers: those predicted, in the target's own units; empty where classes or labels are.
        targets: the names of several numbers; empty if they are not known.
        has_labels: any number of the names in the ranking are right.
    """

    ranking: Sequence[tuple[str, float]] = ()
    numbers: Sequence[float] = ()
    targets: Sequence[str] = ()
    has_labels: bool = False

    def in_words(self) -> str:
        """Return classes with probabilities; labels that are likelier than not, the likeliest first; or numbers."""
        if self.numbers:
            named = zip(self.targets, self.numbers, strict=True) if self.targets else (("", n) for n in self.numbers)
            return "   ".join(f"{printable(name)} {number:.6g}".lstrip() for name, number in named)
        shown = self.ranking
        if self.has_labels:
            shown = sorted((each for each in shown if each[1] > 0.5), key=lambda each: -each[1])
        words = [f"{printable(name)} {100 * probability:.2f} %" for name, probability in shown]
        return "   ".join(words) or "no label"

    def record(self) -> dict[str, Any]:
        """Return what JSON has of it."""
        if self.has_labels:
            likely = [name for name, probability in self.ranking if probability > 0.5]
            return {"labels": likely, "probabilities": dict(self.ranking)}
        if self.targets:
            return {"predicted": dict(zip(self.targets, self.numbers, strict=True))}
        if self.numbers:
            return {"predicted": self.numbers[0] if len(self.numbers) == 1 else self.numbers}
        top = [{"class": name, "probability": probability} for name, probability in self.ranking]
        return {**top[0], "top": top}

    def cells(self) -> list[tuple[str, str]]:
        """Return the names of a table's columns, each with the text in it."""
        if self.has_labels:
            return [(printable(name), f"{probability:.6g}") for name, probability in self.ranking]
        count = len(self.numbers)
        names = self.targets or [f"predicted{place if count > 1 else ''}" for place in range(1, count + 1)]
        found = [(printable(name), f"{number:.6g}") for name, number in zip(names, self.numbers, strict=True)]
        for place, (name, probability) in enumerate(self.ranking, 1):
            more = "" if place == 1 else str(place)
            found += [(f"class{more}", printable(name)), (f"probability{more}", f"{probability:.6g}")]
        return found


class Reader:
    """Makes predictions of a network's scores.

    Args:
        top: how many classes to name; labels and numbers are all there.
    """

    def __init__(self, network: Network, top: int) -> None:
        config = network.config or {}
        self._loss, self._top = network.last_layer, top
        self._kind = network.last_layer.target_kind
        self._normalization = target_normalization_of(network)
        self._names = config.get("classes") or [str(label) for label in range(network.classes)]
        targets = str(config.get("target", "")).split(",")
        self._targets = targets if len(targets) == network.classes > 1 else ()

    def numbers(self, scores: Array) -> numpy.ndarray:
        """Return the predictions of scores, float64 (N, outputs): probabilities, or numbers in their own units."""
        predicted = asnumpy(self._loss.predictions(scores)).astype("float64")
        known = self._normalization
        return predicted if known is None else predicted * known.std + known.mean

    def read(self, numbers: Sequence[float]) -> Prediction:
        """Return the prediction of one sample, given its row of ``numbers``."""
        if self._kind == "values":
            return Prediction(numbers=numbers, targets=self._targets)
        named = list(zip(self._names, numbers, strict=True))
        if self._kind == "labels":
            return Prediction(named, has_labels=True)
        order = numpy.argsort(numpy.negative(numbers), kind="stable")[: self._top]
        return Prediction([named[place] for place in order])
