"""Training in float16: the scale of the loss, and what goes with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy

from backend import array_module, asnumpy
from backend.active import xp
from backend.checks import instance, real, refusal, whole
from kernels import loss_scale
from training.optim.clipping import check_max_norm, gradient_norm

NAMES = ("fp32", "tf32", "fp16")
"""``fp32``: all in float32. ``tf32``: the same, but matrix products round their operands to TF32 (10 bits of
fraction) for a GPU's tensor cores. ``fp16``: activations, gradients and the parameters in use are float16; sums and the
optimizer's master parameters are float32, and the loss is scaled."""


class LossScaler:
    """Dynamic loss scaling (Micikevicius et al. 2018, section 3.2): keeps small gradients from vanishing in float16.

    Whether a gradient overflowed is found and acted on where the gradients lie: nothing waits for the device. The
    optimizer's step is skipped then, and the scale halved; after ``growth_interval`` steps without, it is doubled.

    Args:
        scale: the first one; a power of two, so that to multiply and divide by it is exact.
        growth_interval: steps.

    Raises:
        TypeError: an argument is no number.
        ValueError: the scale is no power of two from 2⁻²⁴ to 2²⁴, or the interval not from 1 to 2²⁴.

    Examples:
        >>> from backend import xp
        >>> from layers import Affine, Sequential
        >>> from training import SGD, LossScaler, Network
        >>> network = Network(Sequential(Affine.of(3, 2)), (3,)).astype("float16")
        >>> scaler, optimizer = LossScaler(), SGD(lr=0.1)
        >>> loss = network.step_gradients(xp.ones((4, 3), "float16"), xp.array([0, 1, 1, 0]), scaler.scale)
        >>> scaler.update(optimizer, network.params, network.grads)
    """

    def __init__(self, scale: float = 2.0**16, growth_interval: int = 2000) -> None:
        scale = _checked_scale(scale)
        self.growth_interval = whole("growth_interval", growth_interval, 1, _MOST_COUNTED)
        self.control = loss_scale.control(scale, xp)
        self._ready = True  # the control is that of a step's beginning

    @property
    def scale(self) -> Any:
        """What the loss is multiplied by: on a GPU a 0-d float32 array there, which shows what ``update`` makes of
        the scale; on the CPU a ``numpy.float32``, which does not."""
        return self.control[loss_scale.SCALE]

    def update(self, optimizer: Any, params: Any, grads: Any, clip_norm: float | None = None) -> None:
        """A step of ``optimizer`` with scaled gradients, which stay as they are; skipped where one is not finite.

        Args:
            optimizer: a ``training.optim.optimizer.Optimizer``.
            params: as the optimizer takes them.
            grads: of the loss times ``scale``.
            clip_norm: the unscaled gradients are scaled down to at most this global norm; None leaves them.

        Raises:
            ValueError: ``clip_norm`` is not positive and finite, or what the optimizer raises; then this was no step:
                scale and counts are as they were.
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
        optimizer.update(params, grads, self.control)
        loss_scale.adjust(self.control, self.growth_interval)
        self._ready = True

    def read(self) -> tuple[float, int]:
        """The scale and how many steps were skipped in all. Waits for the device."""
        control = asnumpy(self.control)
        return float(control[loss_scale.SCALE]), int(control[loss_scale.SKIPPED])

    def is_exhausted(self) -> bool:
        """Whether the last step was skipped and the scale can be no smaller. Waits for the device."""
        control = asnumpy(self.control)
        skipped_last = control[loss_scale.SKIPPED] > 0 and control[loss_scale.GOOD] == 0
        return bool(skipped_last and control[loss_scale.SCALE] <= loss_scale.SMALLEST)

    def state_dict(self) -> dict[str, Any]:
        """What a bitwise resume needs: the control, copied, on the device."""
        return {"control": self.control.copy()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what ``state_dict`` gave, from any device.

        Raises:
            ValueError: it is no such state; nothing is changed.
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
