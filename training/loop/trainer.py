"""The training loop: epochs of shuffled mini-batches, evaluation, the best model kept, and a clear stop on NaN.

A step waits for nothing: loss and accuracy add up on the device and are read at the end of the epoch. What the loop
must see earlier (is the loss finite?) comes as an asynchronous copy, looked at when it has arrived.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

import numpy

from backend import array_module, asnumpy, checks, copy_to_host, profiling, random, synchronize, threads
from backend.transfer import HostCopy
from training.data import Loader
from training.loop import non_finite
from training.loop.callbacks import Callback, EpochResult
from training.loop.non_finite import NonFiniteError
from training.models.accuracy import correct_count
from training.models.network import Network
from training.optim.clipping import check_max_norm, clip_gradients
from training.optim.loss_scaling import LossScaler

RUN, EPOCH, STEP = (profiling.Range(name, name, "loop") for name in ("run", "epoch", "step"))
DATA, UPDATE, EVALUATE = (profiling.Range(name, name) for name in ("data", "update", "evaluate"))


class Trainer:
    """Trains a network.

    Args:
        network: trained in place.
        train: loader of the training batches; its order of an epoch depends on its seed alone.
        test: loader for the evaluation after each epoch, unshuffled, its batches as large as memory likes.
        optimizer: with ``update(params, grads)`` and ``lr``; with a scaler ``update`` takes a third argument, the
            control, as ``training.optim.optimizer.Optimizer.update`` does.
        epochs: at least 1.
        schedule: learning rate by step (0, 1, …); None leaves the optimizer's.
        clip_norm: gradients are scaled down to at most this global norm; None leaves them.
        scaler: of the loss, for a network in float16; None leaves the loss as it is.
        patience: stops after so many epochs without a better test accuracy; None never.
        callbacks: see ``Callback``.

    Attributes:
        history: one ``EpochResult`` an epoch.
        best: the result of the epoch with the highest test accuracy (the first of equals); None before one ended.
        step: steps taken.
        random: the generator that the run draws from, forked from the current one (``backend.random``): other runs
            and threads leave it alone.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a number is out of its range, or a label is none of the network's classes: the loader, the sample's
            index in the data set and the label are named.
    """

    def __init__(
        self,
        network: Network,
        train: Loader,
        test: Loader,
        optimizer: Any,
        *,
        epochs: int = 20,
        schedule: Callable[[int], float] | None = None,
        clip_norm: float | None = None,
        scaler: LossScaler | None = None,
        patience: int | None = None,
        callbacks: Iterable[Callback] = (),
    ) -> None:
        epochs = checks.whole("epochs", epochs, 1, checks.LARGEST_SIZE)
        if patience is not None:
            patience = checks.whole("patience", patience, 1, checks.LARGEST_SIZE)
        if clip_norm is not None:
            clip_norm = check_max_norm("clip_norm", clip_norm)
        checks.instance("network", network, Network, "a Network")
        checks.instance("train", train, Loader, "a Loader")
        checks.instance("test", test, Loader, "a Loader")
        checks.instance("scaler", scaler, (LossScaler, type(None)), "a LossScaler or None")
        if not callable(getattr(optimizer, "update", None)):
            raise checks.refusal(TypeError, "optimizer", "an Optimizer", optimizer)
        if schedule is not None and not callable(schedule):
            raise checks.refusal(TypeError, "schedule", "a function of the step, or None", schedule)
        for data, loader in (("training", train), ("test", test)):
            try:
                loader.check_labels(network.classes)
            except ValueError as error:
                raise ValueError(f"{data} data: {error}") from None
        self.network = network
        self.train_loader = train
        self.test_loader = test
        self.optimizer = optimizer
        self.epochs = epochs
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.scaler = scaler
        self.patience = patience
        self.callbacks = list(callbacks)
        self.history: list[EpochResult] = []
        self.best: EpochResult | None = None
        self.step = 0
        self.samples = 0
        self.random = random.current().fork()
        self._stop = False
        self._place = (0, 0)
        self._best_arrays: dict[str, Any] = {}
        self._losses: deque[tuple[int, int, int, HostCopy]] = deque()

    def train(self) -> list[EpochResult]:
        """Runs all epochs, or until ``stop`` or the end of patience. Returns the history.

        Raises:
            NonFiniteError: the loss is infinite or NaN, a gradient (seen on the CPU), or a parameter before the first
                step. The parameters are those before the step where the loss could be read at once (on the CPU); on a
                GPU a few steps may have followed.
            OutOfMemoryError: a batch is too large, of the training or of the evaluation. The parameters are those
                after the last whole step; what failed holds nothing any more: a trainer with smaller batches can go on.
        """
        self._stop = False
        with RUN:
            for epoch in range(len(self.history) + 1, self.epochs + 1):
                for callback in self.callbacks:
                    callback.on_epoch_begin(self, epoch)
                within = self.network.within_memory(self.train_loader.largest_batch)
                with threads.single_threaded_blas(), within, EPOCH:
                    result = self._epoch(epoch)
                self.history.append(result)
                if self.best is None or result.test_accuracy > self.best.test_accuracy:
                    self._keep_best(result)
                for callback in self.callbacks:
                    callback.on_epoch_end(self, result)
                if self._stop or self._out_of_patience(epoch):
                    break
        return self.history

    def steps(self, epoch: int) -> Generator[int, None, None]:
        """Trains on the batches of epoch 1, 2, …, a step each time it is asked; yields how many were taken in all.

        Nothing else of an epoch happens here: no callback, no evaluation. Close it where it is left early.
        """
        if self.step == 0 and (found := non_finite.in_parameters(self.network)):
            raise NonFiniteError(str(found))
        self._losses.clear()
        self._last_gradient = non_finite.last_gradient(self.network)
        self._totals = array_module(self.network.params.flat).zeros(3, "float64")
        with closing(self.train_loader.epoch(epoch - 1)) as batches:
            for index in range(len(self.train_loader)):
                self._place = (epoch - 1, index)  # where the loader would make this batch again
                with STEP, self._overflow_is_no_warning(), random.using(self.random):
                    with DATA:
                        batch = next(batches)
                    self._train_step(*batch)
                yield self.step

    def stop(self) -> None:
        """Ends the training after the epoch under way; for callbacks."""
        self._stop = True

    def restore_best(self) -> None:
        """Puts the parameters and state of the best epoch back into the network.

        Raises:
            RuntimeError: no epoch has ended.
        """
        if self.best is None:
            raise RuntimeError("no epoch has ended yet: there is no best model")
        self.network.params.flat[...] = self._best_arrays["params"]
        for name, array in self.network.state.items():
            array[...] = self._best_arrays[name]

    def running_totals(self) -> HostCopy:
        """Starts to copy (sum of losses, correct, samples) of the epoch so far to the host; does not wait."""
        return copy_to_host(self._totals)

    def evaluate(self, loader: Loader) -> tuple[float, float]:
        """Mean loss and accuracy over all samples of a loader, in evaluation mode.

        Raises:
            ValueError: a label is none of the network's classes.
            OutOfMemoryError: the loader's batches are too large.
        """
        network = self.network
        loader.check_labels(network.classes)
        totals = array_module(network.params.flat).zeros(2, "float64")
        within = network.within_memory(loader.largest_batch)
        with threads.single_threaded_blas(), EVALUATE, within, closing(loader.epoch(0)) as batches:
            for x, t in batches:
                with random.using(self.random):
                    scores = network.predict(x)
                totals[0] += network.last_layer.forward(scores, t) * len(t)
                totals[1] += correct_count(scores, t)
                for callback in self.callbacks:
                    callback.on_evaluation_step(self)
        loss, correct = asnumpy(totals) / loader.samples
        return float(loss), float(correct)

    def _epoch(self, epoch: int) -> EpochResult:
        start = time.perf_counter()
        _, skipped_before = self._loss_scale()
        with closing(self.steps(epoch)) as steps:
            for step in steps:
                for callback in self.callbacks:
                    callback.on_step_end(self, step)
        synchronize()
        self._check_losses(wait=True)
        trained = time.perf_counter()
        loss_sum, correct, samples = asnumpy(self._totals)
        loss_scale, skipped = self._loss_scale()
        skipped -= skipped_before
        if self.scaler is not None and skipped and self.scaler.is_exhausted():
            found = non_finite.in_backward(self.network, self.train_loader, *self._place, self.scaler.scale)
            raise NonFiniteError(
                f"gradients are not finite at any loss scale down to {loss_scale:g}: {skipped} steps of epoch {epoch} "
                f"were skipped; in the last of them {found}"
            )
        test_loss, test_accuracy = self.evaluate(self.test_loader)
        if not math.isfinite(test_loss):
            since = non_finite.since_step(self.step)
            found = non_finite.in_evaluation(self.network, self.test_loader, "test data", since)
            raise NonFiniteError(f"the test loss is {test_loss} after step {self.step} (epoch {epoch}); {found}")
        return EpochResult(
            epoch,
            float(loss_sum / samples),
            float(correct / samples),
            test_loss,
            test_accuracy,
            float(self.optimizer.lr),
            time.perf_counter() - start,
            float(samples / (trained - start)),
            loss_scale,
            skipped,
        )

    def _overflow_is_no_warning(self) -> AbstractContextManager:
        """Under a loss scale an overflow is looked for, and dealt with."""
        return nullcontext() if self.scaler is None else numpy.errstate(over="ignore", invalid="ignore")

    def _loss_scale(self) -> tuple[float, int]:
        """The scale of the loss and the steps skipped in all so far; waits for the device."""
        return (1.0, 0) if self.scaler is None else self.scaler.read()

    def _train_step(self, x: Any, t: Any) -> None:
        network = self.network
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(self.step)
        scaler = self.scaler
        loss = network.step_gradients(x, t) if scaler is None else network.step_gradients(x, t, scaler.scale)
        self._losses.append((self.step, *self._place, copy_to_host(loss)))
        self._check_losses(wait=False)
        self._check_gradient()
        with UPDATE.of((network.params.flat, network.grads.flat)):
            if scaler is not None:
                scaler.update(self.optimizer, network.params, network.grads, self.clip_norm)
            else:
                if self.clip_norm is not None:
                    clip_gradients(network.grads, self.clip_norm)
                self.optimizer.update(network.params, network.grads)
        self._totals[0] += loss * len(t)
        self._totals[1] += correct_count(network.last_layer.y, t)
        self._totals[2] += len(t)
        self.samples += len(t)
        self.step += 1

    def _check_losses(self, wait: bool) -> None:
        """Looks at the losses that have arrived (all of them, with ``wait``)."""
        while self._losses and (wait or self._losses[0][-1].done):
            step, epoch, index, copy = self._losses.popleft()
            loss = float(copy.get())
            if not math.isfinite(loss):
                found = non_finite.in_step(self.network, self.train_loader, epoch, index, step)
                raise NonFiniteError(
                    f"the loss is {loss} at step {step + 1} (epoch {epoch + 1}, batch {index + 1} of "
                    f"{len(self.train_loader)}); {found}"
                )

    def _check_gradient(self) -> None:
        """On the CPU, stops at a gradient that is not finite, before it reaches the parameters.

        A GPU is not waited for; under a loss scale the scaler looks.
        """
        if self.scaler is not None or not isinstance(self._last_gradient, numpy.ndarray):
            return
        if not numpy.isfinite(self._last_gradient).all():
            epoch, index = self._place
            found = non_finite.in_backward(self.network, self.train_loader, epoch, index, 1.0)
            raise NonFiniteError(
                f"a gradient is not finite at step {self.step + 1} (epoch {epoch + 1}, batch {index + 1} of "
                f"{len(self.train_loader)}); {found}"
            )

    def _keep_best(self, result: EpochResult) -> None:
        arrays = {"params": self.network.params.flat, **self.network.state}
        self._best_arrays = {name: array.copy() for name, array in arrays.items()}
        self.best = result  # last: an interrupt between the two must not leave a best without its arrays

    def _out_of_patience(self, epoch: int) -> bool:
        return self.patience is not None and self.best is not None and epoch - self.best.epoch >= self.patience
