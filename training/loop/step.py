"""Compute a training step: the gradients of a batch, whole or in parts, and the update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy

from backend import array_module, profiling, random
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from kernels.totals import add_to_totals
from training.data.rows import Rows
from training.loop.callbacks import Callback
from training.models.accuracy import right_count
from training.models.metric import rows_of
from training.models.network import Network
from training.models.outputs import places_in
from training.optim.optimizer import Optimizer

if TYPE_CHECKING:
    from training.distributed.exchange import Exchange
    from training.loop.trainer import Trainer

UPDATE = profiling.Range("update", "update")

Figures = tuple[Any, Any, Any]
"""Sum of losses, right samples, and samples (or steps, or pixels): numbers, or 0-d arrays on the device."""


def compute_step(trainer: Trainer, x: Array, t: Array, on_gradients: Callable[[Array], None] | None = None) -> Array:
    """Compute one step: a function of the batch and of arrays on the device, which it updates in place.

    Returns:
        The mean loss, 0-d; among ranks that of all of them.
    """
    network, update, totals = trainer.network, trainer.update, trainer.so_far.totals
    figures = None
    if trainer.parts == 1 and trainer.exchange is None:
        loss = network.step_gradients(x, t, update.loss_scale)
    else:
        parts = trainer.rows.parts(trainer.parts, trainer.ranks.size)
        loss, figures = gradients_in_parts(network, x, t, update.loss_scale, parts, trainer.exchange)
    if on_gradients is not None:
        on_gradients(loss)
    with UPDATE.of((network.params.flat, network.grads.flat)):
        update.step(network.params, network.grads)
    last = network.last_layer
    if figures is None and last.target_kind == "classes":
        y, labels = rows_of(last, last.y, t)
        if labels.ndim == 1 and last.counted(labels) is None:
            add_to_totals(totals, loss, y, labels)
            return loss
    for place, figure in enumerate(figures or _figures(network, loss, t)):
        totals[place] += figure
    return loss


def gradients_in_parts(
    network: Network, x: Array, t: Array, scale: float | Array, parts: Iterable[Rows], exchange: Exchange | None = None
) -> tuple[Array, Figures]:
    """Fill ``network.grads`` with the gradient of a batch's mean loss, computed for one part of it after the other.

    It equals the gradient of the whole batch within rounding, and dropout has the masks of the whole batch, where no
    layer mixes samples: batch normalization normalizes each part by itself. Sums are float32 for float16.

    Args:
        parts: the parts that ``x`` and ``t`` are made of, at least one.
        exchange: sums over the ranks, which have other parts of the batch; None where all are here.

    Returns:
        The mean loss, 0-d; and the figures of the batch.
    """
    grads = network.grads.flat
    xp, dtype = array_module(grads), acc_dtype(grads.dtype)
    parts, first, number = list(parts), 0, 0
    total = len(parts) * (1 if exchange is None else exchange.ranks.size)
    as_many = all(part.size * total == part.whole for part in parts) and not (exchange and exchange.is_compressed)
    sums = grads if len(parts) == 1 and grads.dtype == dtype else xp.empty_like(grads, dtype)
    scaled = xp.empty_like(sums) if len(parts) > 1 else sums
    figures: tuple[Any, ...] = (xp.zeros((), "float64"), xp.zeros((), "float64"), 0, 0)
    if exchange is not None:
        places = math.prod(places_in(network.outputs_of(x.shape[1:])))
        exchange.begin(sums, -(-parts[0].whole // total) * places)

    def add(begin: int, end: int) -> None:
        own = slice(begin, end)
        if not count_alike():
            weight, out = network.last_layer.weight, scaled if number else sums
            xp.multiply(grads[own], weight, out=out[own], dtype=dtype, casting="same_kind")
            if number:
                xp.add(sums[own], scaled[own], out=sums[own])
        elif number:
            xp.add(sums[own], grads[own], out=sums[own])
        elif sums is not grads:
            sums[own] = grads[own]

    def count_alike() -> bool:
        """Return whether the mean of the parts' gradients is that of the batch: their sums then need no weights."""
        return as_many and isinstance(network.last_layer.weight, int)

    for number, part in enumerate(parts):
        own, is_last = slice(first, first + part.size), number == len(parts) - 1
        first += part.size
        filled = exchange.as_filled(add) if exchange is not None and is_last else None
        with random.current().drawing_part(*part, again=number > 0):
            loss = network.step_gradients(x[own], t[own], scale, *([] if filled is None else [filled]))
        weight = network.last_layer.weight
        if exchange is not None and is_last:
            exchange.send_rest(add)
        else:
            add(0, grads.size)
        _, right, samples = _figures(network, loss, t[own])
        figures = tuple(old + new for old, new in zip(figures, (loss * weight, weight, right, samples), strict=True))
    losses, weights, right, samples = figures if exchange is None else _exchanged(exchange, figures)
    weights = xp.where(weights == 0, 1, weights)  # no sample counts
    xp.divide(sums, total if count_alike() else weights, out=grads, dtype=dtype, casting="same_kind")
    loss = (losses / weights).astype(dtype)
    return loss, (loss * samples, right, samples)


def _exchanged(exchange: Exchange, figures: tuple[Any, ...]) -> tuple[Any, ...]:
    """Wait for the sums of gradients over the ranks, and return those of the figures."""
    xp = array_module(figures[0])
    together = xp.empty(len(figures), "float64")
    for place, figure in enumerate(figures):
        together[place] = figure
    exchange.end(together)
    losses, weights, right, samples = together
    # Counts are whole numbers on the host, as without ranks: their product with a float32 stays one.
    return (
        (losses, weights, right, int(samples)) if xp is numpy else (losses, weights, right, samples.astype("float32"))
    )


def has_plain_parts(trainer: Trainer) -> bool:
    """Return True if a graph sees all of a step: no update of another class, no callback in it, no sums on the host."""
    own = [callback for callback in trainer.callbacks if type(callback).on_gradients is not Callback.on_gradients]
    on_device = trainer.exchange is None or trainer.exchange.fits_graphs
    return type(trainer.optimizer).update is Optimizer.update and own == trainer.callbacks[:1] and on_device


def ignoring_overflow(trainer: Trainer) -> AbstractContextManager:
    """Silence NumPy's warnings of overflow under a loss scale, which finds overflows itself."""
    return nullcontext() if trainer.update.scaler is None else numpy.errstate(over="ignore", invalid="ignore")


def _figures(network: Network, loss: Array, t: Array) -> Figures:
    last = network.last_layer
    y, t = rows_of(last, last.y, t)
    samples = last.samples(t)  # len(t), unless some do not count
    return loss * samples, right_count(last, y, t, threshold=0.5), samples
