"""Find a learning rate: train a copy of a network at rates that grow, and look at the loss (Smith 2017)."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from backend import blas, random, threads
from backend.checks import instance, real, refusal, whole
from training.data.one_epoch import OneEpoch
from training.loop.non_finite import NonFiniteError
from training.loop.trainer import Trainer
from training.optim.update import Update

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_STEPS = 10_000
_DIVERGED = 4.0
"""The search ends where the loss, averaged over the latest steps, is this many times the least."""


@dataclass(frozen=True)
class RateSearch:
    """Losses at growing learning rates.

    Attributes:
        rates: learning rates of the steps.
        losses: of their batches, before each update.
        smoothed: averages of the losses over a tenth of all steps around each.
        suggestion: the rate at which the smoothed loss falls fastest over the logarithm of the rate; None if it nowhere
            falls below the first losses.
        diverged: the loss rose so far that the search ended before the highest rate.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None
    diverged: bool

    def figure(self) -> Figure:
        """Draw the losses over the rates, and mark the suggestion."""
        from training.loop.figures import learning_rates

        return learning_rates(self)

    def _repr_png_(self) -> bytes:
        """Show the figure in a notebook."""
        from training.loop.figures import as_png

        return as_png(self.figure())


def find_learning_rate(trainer: Trainer, lowest: float = 1e-7, highest: float = 10.0, steps: int = 100) -> RateSearch:
    """Train a copy of the trainer's network at learning rates from ``lowest`` to ``highest``, and suggest one.

    The rates grow by the same factor from step to step. The trainer's network, optimizer, loss scale and random numbers
    stay as they are: it then trains to the same bits as without the search. The copy needs memory for a second set of
    parameters and optimizer state.

    Args:
        trainer: new, or between two steps; its callbacks are not called.
        lowest, highest: above 0.
        steps: from 10 to 10,000. The batches are those of the first epoch, and of the next where it has not enough.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: ``lowest`` is not below ``highest``, a number is out of its range, or the trainer's batches are
            those of an iterator, which come once.
        NonFiniteError: the first loss is infinite or NaN.
        OutOfMemoryError: a batch is too large.

    Examples:
        >>> import numpy as np
        >>> from layers import Affine, Sequential
        >>> from training import SGD, Loader, Network, Trainer, find_learning_rate
        >>> x = np.eye(4, dtype="float32").repeat(25, axis=0)
        >>> loader = Loader(x, np.arange(4).repeat(25), batch_size=10)
        >>> trainer = Trainer(Network(Sequential(Affine.of(4, 4)), (4,)), loader, loader, SGD())
        >>> found = find_learning_rate(trainer)
        >>> 0.01 < found.suggestion < 10
        True
    """
    instance("trainer", trainer, Trainer, "a Trainer")
    lowest, highest = real("lowest", lowest, above=0), real("highest", highest, above=0)
    if lowest >= highest:
        raise refusal(ValueError, "lowest", f"less than highest, {highest:g}", lowest)
    steps = whole("steps", steps, 10, _MOST_STEPS)
    if isinstance(trainer.train_loader, OneEpoch):
        raise ValueError(f"the search would use up the batches of {trainer.train_loader}, which come once")
    rates = [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]
    numpys = numpy.random.get_state()
    try:
        losses, diverged = _losses(_probe(trainer, rates), steps)
    finally:
        numpy.random.set_state(numpys)
    rates = rates[: len(losses)]
    smoothed = _smoothed(losses, max(3, steps // 10))
    return RateSearch(rates, losses, smoothed, _steepest(rates, losses, smoothed), diverged)


def _probe(trainer: Trainer, rates: list[float]) -> Trainer:
    """Return a trainer of copies of all that a step changes."""
    update = Update(
        copy.deepcopy(trainer.optimizer),
        schedule=lambda step: rates[min(step, len(rates) - 1)],
        clip_norm=trainer.update.clip_norm,
        scaler=copy.deepcopy(trainer.update.scaler),
    )
    with random.using(random.Generator()):
        probe = Trainer(
            copy.deepcopy(trainer.network),
            trainer.train_loader,
            trainer.test_loader,
            update,
            graph=trainer._graphs is not None,
            parts=trainer.parts,
        )
    probe.random.state = trainer.random.state
    probe.callbacks.clear()  # a loss that is not finite ends the search: nobody asks where it began
    return probe


def _losses(probe: Trainer, steps: int) -> tuple[list[float], bool]:
    """Return the losses of the steps until the loss has diverged, and whether it has."""
    losses: list[float] = []
    recent = least = math.inf
    within = probe.network.within_memory(probe.train_loader.largest_batch)
    with threads.single_threaded_blas(), within, numpy.errstate(all="ignore"), closing(_each_loss(probe)) as each:
        blas.prepare()
        for loss in itertools.islice(each, steps):
            if not math.isfinite(loss):
                if not losses:
                    raise NonFiniteError(f"the loss is {loss} at the first step of the search for a learning rate")
                return losses, True
            losses.append(loss)
            recent = loss if len(losses) == 1 else 0.7 * recent + 0.3 * loss
            least = min(least, recent)
            if len(losses) > 5 and recent > _DIVERGED * least:
                return losses, True
    return losses, False


def _each_loss(probe: Trainer) -> Generator[float, None, None]:
    """Yield the mean loss of each step; waits for it."""
    for epoch in itertools.count(1):
        before, counted = 0.0, 0.0
        with closing(probe.steps(epoch)) as taken:
            for _ in taken:
                total, _, samples = probe.running_totals().get().tolist()
                yield (total - before) / max(samples - counted, 1)
                before, counted = total, samples


def _smoothed(losses: list[float], width: int) -> list[float]:
    """Return averages weighted by a triangle around each loss, which do not lag behind."""
    triangle = numpy.bartlett(2 * (width // 2) + 3)[1:-1]
    total = numpy.convolve(losses, triangle)
    weight = numpy.convolve(numpy.ones(len(losses)), triangle)
    half = len(triangle) // 2
    return (total / weight)[half : half + len(losses)].tolist()


def _steepest(rates: list[float], losses: list[float], smoothed: list[float]) -> float | None:
    """Return the rate where the smoothed loss falls fastest, before it is least; None if it does not fall.

    A fall is one of more than a hundredth of the first losses, and of more than twice the deviation of losses around
    the smoothed ones.
    """
    least = int(numpy.argmin(smoothed))
    start = float(numpy.mean(losses[: max(3, len(losses) // 10)]))
    noise = float(numpy.std(numpy.subtract(losses, smoothed)[: max(least + 1, len(losses) // 2)]))
    if start - smoothed[least] <= max(abs(start) / 100, 2 * noise):
        return None
    slopes = numpy.gradient(numpy.asarray(smoothed), numpy.log(rates))[: least + 1]
    place = int(slopes.argmin())
    return rates[place] if slopes[place] < 0 else None
