"""Stop a training at the first number that is not finite."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy

from backend import copy_to_host
from backend.transfer import HostCopy
from backend.types import Array
from training.loop import non_finite
from training.loop.callbacks import Callback, EpochResult
from training.loop.non_finite import NonFiniteError, Origin

if TYPE_CHECKING:
    from training.loop.trainer import Trainer


_BEHIND = 4
"""Steps for whose losses ranks with a GPU do not wait."""


class NonFiniteWatch(Callback):
    """Callback that raises ``NonFiniteError``, which names the sample, parameter or layer where NaN or infinity began.

    Every trainer has one, as its first callback. On the CPU it looks at the loss and a gradient before each update. A
    GPU is not waited for: each loss is copied to the host asynchronously, and checked when it has arrived.
    """

    def __init__(self) -> None:
        self._losses: deque[tuple[int, int, int, HostCopy]] = deque()
        self._gradient: Array | None = None
        self._skipped = 0

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        if trainer.step == 0 and (found := non_finite.in_parameters(trainer.network)):
            raise NonFiniteError(str(found))
        self._losses.clear()
        self._gradient = non_finite.last_gradient(trainer.network)
        scaler = trainer.update.scaler
        self._skipped = 0 if scaler is None else scaler.read()[1]

    def on_gradients(self, trainer: Trainer, loss: Array) -> None:
        self._losses.append((trainer.step, *trainer.position, copy_to_host(loss)))
        self._check_losses(trainer, wait=False)
        if trainer.update.scaler is None and isinstance(self._gradient, numpy.ndarray):  # else the scaler looks
            self._check_gradient(trainer, self._gradient)

    def on_epoch_trained(self, trainer: Trainer) -> None:
        self._check_losses(trainer, wait=True)
        scaler = trainer.update.scaler
        if scaler is None:
            return
        scale, skipped = scaler.read()
        skipped -= self._skipped
        if skipped and scaler.is_exhausted():
            found = non_finite.in_backward(trainer.network, trainer.train_loader, *trainer.position, scaler.scale)
            raise NonFiniteError(
                f"gradients are not finite at any loss scale down to {scale:g}: {skipped} steps of epoch "
                f"{trainer.position[0] + 1} were skipped; in the last of them {found}"
            )

    def on_epoch_evaluated(self, trainer: Trainer, result: EpochResult) -> None:
        if not math.isfinite(result.test_loss):
            since = non_finite.since_step(trainer.step)
            found = non_finite.in_evaluation(trainer.network, trainer.test_loader, "test data", since)
            raise NonFiniteError(
                f"the test loss is {result.test_loss} after step {trainer.step} (epoch {result.epoch}); {found}"
            )

    def _check_losses(self, trainer: Trainer, wait: bool) -> None:
        """Check the losses that have arrived; all of them with ``wait``. Ranks check those of the same steps."""
        while self._losses and (wait or self._is_due(trainer)):
            step, epoch, index, copy = self._losses.popleft()
            loss = float(copy.get())
            if not math.isfinite(loss):
                try:
                    found = str(
                        _of_all(trainer, non_finite.in_step(trainer.network, trainer.train_loader, epoch, index, step))
                    )
                except LookupError as error:
                    found = str(error)
                raise NonFiniteError(f"the loss is {loss} at {_place(trainer, step, epoch, index)}; {found}")

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.ranks.size == 1 or isinstance(trainer.network.params.flat, numpy.ndarray):
            return self._losses[0][-1].done
        return len(self._losses) > _BEHIND

    def _check_gradient(self, trainer: Trainer, gradient: Array) -> None:
        if not numpy.isfinite(gradient).all():
            found = non_finite.in_backward(trainer.network, trainer.train_loader, *trainer.position, 1.0)
            found = _of_all(trainer, found)
            place = _place(trainer, trainer.step, *trainer.position)
            raise NonFiniteError(f"a gradient is not finite at {place}; {found}")


def _of_all(trainer: Trainer, found: Origin) -> Origin:
    """Return what was found on the first rank that has found anything: each looks at its own samples."""
    if trainer.ranks.size == 1:
        return found
    every = trainer.ranks.gather(found, "looked for a number that is not finite")
    rank, first = next(((rank, each) for rank, each in enumerate(every) if each.is_found), (0, every[0]))
    return replace(first, place=f"rank {rank}, {first.place}")


def _place(trainer: Trainer, step: int, epoch: int, index: int) -> str:
    return f"step {step + 1} (epoch {epoch + 1}, batch {index + 1} of {len(trainer.train_loader)})"
