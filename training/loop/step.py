"""Compute a training step: the gradients of a batch, whole or in parts, and the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy

from backend import array_module, profiling
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from kernels.totals import add_to_totals
from training.loop.callbacks import Callback
from training.models.accuracy import right_count
from training.models.network import Network
from training.optim.optimizer import Optimizer

if TYPE_CHECKING:
    from training.loop.trainer import Trainer

UPDATE = profiling.Range("update", "update")

Figures = tuple[Any, Any, Any]
"""Sum of losses, right samples, and samples: numbers, or 0-d arrays on the device."""


def compute_step(trainer: Trainer, x: Array, t: Array, on_gradients: Callable[[Array], None] | None = None) -> Array:
    """Compute one step: a function of the batch and of arrays on the device, which it updates in place.

    Returns:
        The mean loss, 0-d.
    """
    network, update, totals = trainer.network, trainer.update, trainer.so_far.totals
    figures = None
    if trainer.parts == 1:
        loss = network.step_gradients(x, t, update.loss_scale)
    else:
        loss, figures = gradients_in_parts(network, x, t, update.loss_scale, _parts(trainer, len(t)))
    if on_gradients is not None:
        on_gradients(loss)
    with UPDATE.of((network.params.flat, network.grads.flat)):
        update.step(network.params, network.grads)
    last = network.last_layer
    if figures is None and last.target_kind == "classes" and t.ndim == 1 and last.counted(t) is None:
        add_to_totals(totals, loss, last.y, t)
        return loss
    for place, figure in enumerate(figures or _figures(network, loss, t)):
        totals[place] += figure
    return loss


def gradients_in_parts(
    network: Network, x: Array, t: Array, scale: float | Array, parts: Iterator[slice]
) -> tuple[Array, Figures]:
    """Fill ``network.grads`` with the gradient of a batch's mean loss, computed for one part of it after the other.

    It equals the gradient of the whole batch within rounding, where no layer mixes samples: batch normalization
    normalizes each part by itself. Sums are float32 for float16.

    Returns:
        The mean loss, 0-d; and the figures of the batch.
    """
    grads = network.grads.flat
    xp, dtype = array_module(grads), acc_dtype(grads.dtype)
    sums, scaled = xp.zeros_like(grads, dtype), xp.empty_like(grads, dtype)
    losses, weights = xp.zeros((), "float64"), xp.zeros((), "float64")
    right: Any = 0
    samples: Any = 0
    for part in parts:
        loss = network.step_gradients(x[part], t[part], scale)
        weight = network.last_layer.weight
        xp.multiply(grads, weight, out=scaled, dtype=dtype, casting="same_kind")
        xp.add(sums, scaled, out=sums)
        losses, weights = losses + loss * weight, weights + weight
        _, right_of_part, samples_of_part = _figures(network, loss, t[part])
        right, samples = right + right_of_part, samples + samples_of_part
    weights = xp.where(weights == 0, 1, weights)  # no sample counts
    xp.divide(sums, weights, out=sums, dtype=dtype, casting="same_kind")
    grads[...] = sums
    loss = (losses / weights).astype(dtype)
    return loss, (loss * samples, right, samples)


def has_plain_parts(trainer: Trainer) -> bool:
    """Return True if a graph sees all of a step: no update of another class, no callback within the step."""
    own = [callback for callback in trainer.callbacks if type(callback).on_gradients is not Callback.on_gradients]
    return type(trainer.optimizer).update is Optimizer.update and own == trainer.callbacks[:1]


def ignoring_overflow(trainer: Trainer) -> AbstractContextManager:
    """Silence NumPy's warnings of overflow under a loss scale, which finds overflows itself."""
    return nullcontext() if trainer.update.scaler is None else numpy.errstate(over="ignore", invalid="ignore")


def _figures(network: Network, loss: Array, t: Array) -> Figures:
    last = network.last_layer
    samples = last.samples(t)  # len(t), unless some do not count
    return loss * samples, right_count(last, last.y, t, threshold=0.5), samples


def _parts(trainer: Trainer, samples: int) -> Iterator[slice]:
    size = -(-trainer.train_loader.largest_batch // trainer.parts)
    for first in range(0, samples, size):
        yield slice(first, first + size)
