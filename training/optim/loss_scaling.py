"""Training in float16: dynamic scaling of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy

from backend import array_module, asnumpy
from backend.active import xp
from backend.checks import instance, real, refusal, whole
from backend.types import Array
from kernels import loss_scale
from training.optim.clipping import check_max_norm, gradient_norm

NAMES = ("fp32", "tf32", "fp16")
"""Precisions. ``fp32``: all in float32. ``tf32``: the same, except that matrix products round their operands to TF32
(10 bits of fraction) for a GPU's tensor cores. ``fp16``: activations, gradients and the parameters in use are float16;
sums and the optimizer's master parameters are float32, and the loss is scaled."""


class LossScaler:
    """Dynamic loss scaling (Micikevicius et al. 2018, section 3.2): keeps small gradients from vanishing in float16.

    An overflow of a gradient is found and acted on where the gradients lie: nothing waits for the device. The
    optimizer's step is then skipped and the scale halved; after ``growth_interval`` steps without one, it is doubled.
    ``training.optim.Update`` calls it.

    Args:
        scale: the initial one; a power of two, so that multiplying and dividing by it is exact.
        growth_interval: steps.

    Raises:
        TypeError: an argument is not a number.
        ValueError: the scale is not a power of two from 2⁻²⁴ to 2²⁴, or the interval not from 1 to 2²⁴.

    Examples:
        >>> from backend import xp
        >>> from layers import Affine, Sequential
        >>> from training import SGD, LossScaler, Network, Update
        >>> network = Network(Sequential(Affine.of(3, 2)), (3,)).astype("float16")
        >>> update = Update(SGD(lr=0.1), scaler=LossScaler(growth_interval=1))
        >>> x, t = xp.ones((4, 3), "float16"), xp.array([0, 1, 1, 0])
        >>> loss = network.step_gradients(x, t, update.loss_scale)
        >>> update.step(network.params, network.grads)
        >>> update.scaler.read()  # scale, skipped steps
        (131072.0, 0)
    """

    def __init__(self, scale: float = 2.0**16, growth_interval: int = 2000) -> None:
        scale = _checked_scale(scale)
        self.growth_interval = whole("growth_interval", growth_interval, 1, _MOST_COUNTED)
        self.control = loss_scale.control(scale, xp)
        self._ready = True  # the control is that of a step's beginning

    @property
    def scale(self) -> Array:
        """The factor of the loss: on a GPU a 0-d float32 view there, which follows later steps; on the CPU a
        ``numpy.float32``, which does not."""
        return self.control[loss_scale.SCALE]

    def examine(self, grads: Mapping[str, Array], clip_norm: float | None = None) -> Array:
        """Look for an overflow in scaled gradients. Return the control for the optimizer's update, which ``adjust``
        follows.

        Args:
            grads: of the loss times ``scale``; they stay as they are.
            clip_norm: the update scales the unscaled gradients down to at most this global norm; None leaves them.

        Raises:
            ValueError: ``clip_norm`` is not positive and finite.
        """
        if clip_norm is not None:
            clip_norm = check_max_norm("clip_norm", clip_norm)
        if not self._ready:
            loss_scale.restart(self.control)
        self._ready = False
        flat = getattr(grads, "flat", None)
        for gradient in grads.values() if flat is None else [flat]:
            loss_scale.find_overflow(gradient, self.control)
        if clip_norm is not None:
            loss_scale.limit_norm(gradient_norm(grads), clip_norm, self.control)
        return self.control

    def adjust(self) -> None:
        """End a step: move the scale, and count."""
        loss_scale.adjust(self.control, self.growth_interval)
        self._ready = True

    def read(self) -> tuple[float, int]:
        """Return the scale and the number of skipped steps. Waits for the device."""
        control = asnumpy(self.control)
        return float(control[loss_scale.SCALE]), int(control[loss_scale.SKIPPED])

    def is_exhausted(self) -> bool:
        """Return True if the last step was skipped at the smallest scale. Waits for the device."""
        control = asnumpy(self.control)
        skipped_last = control[loss_scale.SKIPPED] > 0 and control[loss_scale.GOOD] == 0
        return bool(skipped_last and control[loss_scale.SCALE] <= loss_scale.SMALLEST)

    def state_dict(self) -> dict[str, Any]:
        """Return what a bitwise resume needs: a copy of the control, on the device."""
        return {"control": self.control.copy()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned, from any device.

        Raises:
            ValueError: it is not such a state; nothing is changed.
        """
        instance("saved", saved, Mapping, "a dictionary, as of state_dict")
        if saved.keys() != {"control"}:
            raise ValueError(f"not a state of LossScaler: it needs 'control' alone, got {sorted(saved)}")
        control = asnumpy(saved["control"])
        if control.shape != self.control.shape or control.dtype != self.control.dtype:
            raise ValueError(
                f"not a state of LossScaler: control must be float32[{self.control.size}], got {control.dtype}"
                f"{list(control.shape)}"
            )
        _checked_scale(control[loss_scale.SCALE])
        counts = control[[loss_scale.GOOD, loss_scale.SKIPPED]]
        if not (numpy.isfinite(counts) & (counts >= 0)).all():
            raise ValueError(f"not a state of LossScaler: steps are counted from 0, got {counts.tolist()}")
        self.control[...] = array_module(self.control).asarray(control)
        self._ready = False  # what was saved may be of the middle of a step that failed


_MOST_COUNTED = 1 << 24  # the control counts in float32


def _checked_scale(scale: float) -> float:
    number = real("scale", scale)
    if not loss_scale.SMALLEST <= number <= loss_scale.LARGEST or math.frexp(number)[0] != 0.5:
        raise refusal(ValueError, "scale", "a power of two from 2^-24 to 2^24", scale)
    return number
