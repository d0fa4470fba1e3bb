"""Update the parameters from their gradients: schedule, clipping, loss scale and optimizer in one object."""

from __future__ import annotations

from typing import Any

from backend.checks import refusal
from backend.graph_numbers import repeat
from backend.types import Array
from training.optim.checks import Arrays
from training.optim.clipping import check_max_norm, clip_gradients
from training.optim.loss_scaling import LossScaler
from training.optim.schedules import Schedule


class Update:
    """An update of parameters, the same call for float32 and float16.

    Args:
        optimizer: has ``update(params, grads)`` and ``lr``; with a scaler ``update`` takes a third argument, the
            control, as ``training.optim.optimizer.Optimizer.update`` does.
        schedule: learning rate by step (0, 1, …); None leaves the optimizer's.
        clip_norm: gradients are scaled down to at most this global norm; None leaves them.
        scaler: loss scaler for float16 training; None disables scaling.

    Attributes:
        t: number of updates so far, which is the step that the schedule is asked for next.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: ``clip_norm`` is not positive and finite.

    Examples:
        >>> from backend import xp
        >>> from training import SGD, StepSchedule, Update
        >>> update = Update(SGD(), schedule=StepSchedule(lr=1.0, every=1), clip_norm=1.0)
        >>> params = {"W": xp.zeros(2)}
        >>> for _ in range(2):
        ...     update.step(params, {"W": xp.array([3.0, 4.0])})
        >>> params["W"].round(2).tolist()  # 0.6 and 0.8 of norm 1, then a tenth of it
        [-0.66, -0.88]
    """

    def __init__(
        self,
        optimizer: Any,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        scaler: LossScaler | None = None,
    ) -> None:
        if not callable(getattr(optimizer, "update", None)):
            raise refusal(TypeError, "optimizer", "an Optimizer", optimizer)
        if schedule is not None and not callable(schedule):
            raise refusal(TypeError, "schedule", "a function of the step, or None", schedule)
        if scaler is not None and not isinstance(scaler, LossScaler):
            raise refusal(TypeError, "scaler", "a LossScaler or None", scaler)
        self.optimizer = optimizer
        self.schedule = schedule
        self.clip_norm = None if clip_norm is None else check_max_norm("clip_norm", clip_norm)
        self.scaler = scaler
        self.t = 0

    @property
    def loss_scale(self) -> float | Array:
        """The factor of the loss whose gradients ``step`` takes: 1, or the scaler's scale, on its device."""
        return 1.0 if self.scaler is None else self.scaler.scale

    def step(self, params: Arrays, grads: Arrays) -> None:
        """Update ``params`` in place. Nothing waits for the device.

        Under a loss scale ``grads`` stay as they are, and the step is skipped where one of them is not finite; without,
        clipping changes them.

        Args:
            params: floating-point arrays by name.
            grads: their gradients, of the loss times ``loss_scale``.

        Raises:
            ValueError, TypeError: as the optimizer's. Parameters, scale and counts are then as they were.
        """
        repeat(self._set_rate)
        if self.scaler is not None:
            control = self.scaler.examine(grads, self.clip_norm)
            self.optimizer.update(params, grads, control)
            self.scaler.adjust()
        else:
            if self.clip_norm is not None:
                clip_gradients(grads, self.clip_norm)
            self.optimizer.update(params, grads)
        repeat(self._count)

    def _set_rate(self) -> None:
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(self.t)

    def _count(self) -> None:
        self.t += 1
