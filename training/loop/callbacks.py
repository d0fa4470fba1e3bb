"""What a training run tells, and to whom."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.loop.trainer import Trainer


@dataclass(frozen=True)
class EpochResult:
    """What an epoch came to. Losses are means over samples, accuracies shares from 0 to 1.

    ``loss`` and ``accuracy`` are those of the training batches as they were trained on, so they lag behind the
    model at the epoch's end. ``seconds`` is the whole epoch, evaluation included. ``skipped_steps`` are those of the
    epoch that changed nothing since a scaled gradient overflowed; ``loss_scale`` is that at the epoch's end.
    """

    epoch: int
    loss: float
    accuracy: float
    test_loss: float
    test_accuracy: float
    lr: float
    seconds: float
    images_per_second: float
    loss_scale: float = 1.0
    skipped_steps: int = 0

    def as_dict(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


class Callback:
    """What is told of a training run. Override what is of interest; ``trainer`` has all the rest."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Before the first step of epoch 1, 2, …"""

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        """After step 1, 2, … of the whole run. To read a device array here would make every step wait."""

    def on_evaluation_step(self, trainer: Trainer) -> None:
        """After each batch of an evaluation."""

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        """After the evaluation of an epoch."""
