"""Training callbacks, and the results of an epoch that they are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.types import Array
    from training.loop.trainer import Trainer


@dataclass(frozen=True)
class EpochResult:
    """Results of an epoch. Losses are means over samples, accuracies fractions from 0 to 1.

    ``loss`` and ``accuracy`` are those of the training batches as they were trained on, so they lag behind the
    model at the epoch's end. ``seconds`` is the whole epoch, evaluation included. ``skipped_steps`` are those of the
    epoch that changed nothing because a scaled gradient overflowed; ``loss_scale`` is that at the epoch's end.
    ``metrics`` are the trainer's metrics of the test data, by name. Accuracies are NaN for a network that predicts
    numbers.
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
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The test accuracy, or for a network that predicts numbers minus the test loss: highest at the best epoch."""
        return -self.test_loss if math.isnan(self.test_accuracy) else self.test_accuracy

    @property
    def rank(self) -> tuple[float, float]:
        """The sort key of epochs, highest for the best: the score, and among equal scores the lower test loss."""
        return self.score, -self.test_loss

    def as_dict(self, part: str = "test") -> dict[str, Any]:
        """Return the fields by name, those of the evaluation named by the part of the data: "val_loss" for "val"."""
        return {name.replace("test_", f"{part}_", 1): value for name, value in asdict(self).items()}

    def _repr_html_(self) -> str:
        from training.loop.epoch_table import as_html

        return as_html([self])


class Callback:
    """Base of the callbacks of a training run: override the methods of interest.

    All methods do nothing here. ``trainer`` has the network, the history and the step. The trainer calls its
    callbacks in the order in which they were given.

    Examples:
        >>> import numpy as np
        >>> from training import SGD, Callback, Loader, Trainer, TwoLayerNet
        >>> class Count(Callback):
        ...     steps = 0
        ...     def on_step_end(self, trainer, step):
        ...         self.steps = step
        >>> data = Loader(np.zeros((10, 4), "uint8"), np.arange(10) % 2, batch_size=5)
        >>> count = Count()
        >>> history = Trainer(TwoLayerNet(4, 3, 2), data, data, SGD(), epochs=3, callbacks=[count]).train()
        >>> count.steps
        6
    """

    def on_run_begin(self, trainer: Trainer) -> None:
        """Run at the beginning of ``Trainer.train`` or ``epochs``; again where an interrupted run goes on."""

    def on_run_end(self, trainer: Trainer) -> None:
        """Run at the end of a run, however it ends; after ``on_exception``, if there is one."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Run when an exception ends the run, a ``KeyboardInterrupt`` among them."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Run before the first step of epoch 1, 2, …; again where an interrupted epoch goes on."""

    def on_step_begin(self, trainer: Trainer, step: int) -> None:
        """Run before step 1, 2, … of the whole run."""

    def on_gradients(self, trainer: Trainer, loss: Array) -> None:
        """Run in every step after backward and before the update: ``trainer.network.grads`` are those of this step.

        ``loss`` is 0-d and on the device. Reading it here would make every step wait for a GPU.
        """

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        """Run after step 1, 2, … of the whole run. Reading a device array here would make every step wait."""

    def on_epoch_trained(self, trainer: Trainer) -> None:
        """Run after the last step of an epoch and before its evaluation."""

    def on_evaluation_begin(self, trainer: Trainer) -> None:
        """Run before the first batch of an evaluation."""

    def on_evaluation_step(self, trainer: Trainer) -> None:
        """Run after each batch of an evaluation."""

    def on_evaluation_end(self, trainer: Trainer, loss: float, accuracy: float) -> None:
        """Run after an evaluation, with its mean loss and its accuracy."""

    def on_epoch_evaluated(self, trainer: Trainer, result: EpochResult) -> None:
        """Run after the evaluation of an epoch, before its result joins the history: an exception keeps it out."""

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        """Run at the end of an epoch, with its result as the last of the history."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of this callback: arrays, and what JSON can hold, by name; empty for none."""
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned; its arrays lie on the host.

        Raises:
            ValueError: it is not such a state; nothing is changed.
        """


def hooks(trainer: Trainer, name: str) -> list[Callable[..., None]]:
    """Return a hook of the callbacks that define it: calling those that do nothing would cost each step time."""
    found = [getattr(callback, name) for callback in trainer.callbacks]
    return [hook for hook in found if getattr(hook, "__func__", None) is not getattr(Callback, name)]


def tell(trainer: Trainer, hook: str, *arguments: object) -> None:
    """Call a hook of all callbacks, in their order."""
    for callback in trainer.callbacks:
        getattr(callback, hook)(trainer, *arguments)
