"""A learning rate that goes down where the training no longer gets better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from backend.checks import LARGEST_SIZE, instance, real, whole


class PlateauSchedule:
    """``lr``, multiplied by ``factor`` where more than ``patience`` epochs in a row are not better than the best.

    It has to be told the score of each epoch: a ``Trainer`` does so with ``EpochResult.score``, of its test loader,
    which is better the higher it is. A score that is NaN is not better.

    Args:
        lr: the first learning rate.
        factor: from 0 to 1.
        patience: epochs that may be no better, at least 0; they are counted anew after each reduction.
        final_lr: the least learning rate.
        threshold: a score is better if it is higher by more than this.

    Attributes:
        rate: the learning rate as it is now.

    Raises:
        TypeError: an argument is not a number.
        ValueError: it is out of its range.

    Examples:
        >>> from training import PlateauSchedule
        >>> schedule, rates = PlateauSchedule(lr=1.0, factor=0.5, patience=1), []
        >>> for step, score in enumerate([0.7, 0.8, 0.8, 0.7, 0.9]):
        ...     rates.append(schedule(step))
        ...     schedule.observe(score)
        >>> rates
        [1.0, 1.0, 1.0, 1.0, 0.5]
    """

    def __init__(
        self, lr: float, factor: float = 0.1, patience: int = 2, final_lr: float = 0.0, threshold: float = 0.0
    ) -> None:
        self.lr = self.rate = real("lr", lr, least=0)
        self.factor = real("factor", factor, least=0, most=1)
        self.patience = whole("patience", patience, 0, LARGEST_SIZE)
        self.final_lr = real("final_lr", final_lr, least=0)
        self.threshold = real("threshold", threshold, least=0)
        self._best, self._waited = -math.inf, 0

    def __call__(self, step: int) -> float:
        """Return the learning rate as it is now."""
        return self.rate

    def observe(self, score: float) -> None:
        """Take the score of an epoch that has ended into account."""
        self._waited += 1
        if score > self._best + self.threshold:
            self._best, self._waited = score, 0
        elif self._waited > self.patience:
            self.rate, self._waited = min(self.rate, max(self.final_lr, self.rate * self.factor)), 0

    def state_dict(self) -> dict[str, Any]:
        """Return the learning rate, the best score, and how many epochs were not better."""
        return {"rate": self.rate, "best": self._best, "waited": self._waited}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned.

        Raises:
            TypeError: ``saved`` is not a dictionary, or an entry not a number.
            ValueError: an entry is missing or out of its range; nothing is changed.
        """
        instance("saved", saved, Mapping, "a dictionary, as of state_dict")
        if saved.keys() != {"rate", "best", "waited"}:
            raise ValueError(f"not a state of PlateauSchedule: expected rate, best and waited, got {', '.join(saved)}")
        rate, waited = real("rate", saved["rate"], least=0), whole("waited", saved["waited"], 0, LARGEST_SIZE)
        best = float(saved["best"])
        self.rate, self._best, self._waited = rate, best, waited

    def __repr__(self) -> str:
        return f"PlateauSchedule(lr={self.lr:g}, factor={self.factor:g}, patience={self.patience})"
