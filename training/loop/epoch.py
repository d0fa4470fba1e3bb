"""Run one epoch: its steps, the evaluation after them, and its result."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from backend import blas, profiling, synchronize, threads
from training.distributed.together import not_stuck, parameters_agree
from training.loop import stopping
from training.loop.callbacks import EpochResult, tell
from training.optim.schedules import observe

if TYPE_CHECKING:
    from training.loop.trainer import Trainer

EPOCH = profiling.Range("epoch", "epoch", "loop")


def run_epoch(trainer: Trainer, epoch: int) -> EpochResult:
    """Train the batches of epoch 1, 2, … that are left, evaluate, and add the result to the history.

    Raises:
        KeyboardInterrupt, NonFiniteError, OutOfMemoryError: as ``Trainer.epochs``.
    """
    within = trainer.network.within_memory(trainer.train_loader.largest_batch)
    with threads.single_threaded_blas(), within, EPOCH, trainer.so_far:
        blas.prepare()
        with not_stuck(trainer), closing(trainer.steps(epoch, trainer.so_far.batches)) as steps:
            for _ in steps:
                pass
            synchronize()
        result = _evaluated(trainer, epoch)
    trainer.history.append(result)
    observe(trainer.update.schedule, result.score)
    trainer.so_far.batches = 0
    tell(trainer, "on_epoch_end", result)
    check_stop(trainer, at_epoch_end=True)
    return result


def check_stop(trainer: Trainer, at_epoch_end: bool = False) -> None:
    """Raise if a signal has arrived, on any rank: all then stop after the same step."""
    if number := trainer.ranks.signal_to_stop(stopping.pending(), at_epoch_end):
        stopping.stop(number)


def loss_scale(trainer: Trainer) -> tuple[float, int]:
    """Return the loss scale and the number of steps skipped so far; wait for the device."""
    return (1.0, 0) if trainer.update.scaler is None else trainer.update.scaler.read()


def _evaluated(trainer: Trainer, epoch: int) -> EpochResult:
    """Evaluate an epoch whose batches are done."""
    parameters_agree(trainer)
    tell(trainer, "on_epoch_trained")
    # The loader of an iterator does not know its samples, but gives one epoch.
    images = trainer.train_loader.samples or trainer.samples
    figures = trainer.so_far.figures(images if trainer.network.has_places else None)
    scale, skipped = loss_scale(trainer)
    tested = trainer.evaluate(trainer.test_loader)
    result = EpochResult(
        epoch=epoch,
        test_loss=tested.loss,
        test_accuracy=tested.accuracy,
        lr=float(trainer.optimizer.lr),
        seconds=trainer.so_far.seconds,
        loss_scale=scale,
        skipped_steps=skipped - trainer.so_far.skipped_before,
        metrics=tested.metrics,
        **figures,
    )
    tell(trainer, "on_epoch_evaluated", result)
    return result
