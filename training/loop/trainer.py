"""The training loop: epochs of shuffled mini-batches, each followed by an evaluation.

A step waits for nothing: loss and accuracy add up on the device and are read at the end of the epoch.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path

import numpy

from backend import array_module, checks, copy_to_host, profiling, random
from backend.transfer import HostCopy
from backend.types import Array
from training.data import Loader
from training.data.as_loader import as_loader
from training.data.rows import Rows
from training.distributed.shard import rows_of
from training.distributed.together import Alone, Ranks, begin_together, exchange_of, share_of
from training.loop import checkpoint, evaluation, stopping
from training.loop.callbacks import Callback, EpochResult, hooks, tell
from training.loop.display import display_for
from training.loop.epoch import check_stop, loss_scale, run_epoch
from training.loop.epoch_so_far import EpochSoFar
from training.loop.epoch_table import History, trainer_html
from training.loop.step import compute_step, has_plain_parts, ignoring_overflow
from training.loop.step_graphs import StepGraphs
from training.loop.watch import NonFiniteWatch
from training.models.metric import Metric
from training.models.metrics import as_metrics
from training.models.network import Network
from training.optim.optimizer import Optimizer
from training.optim.update import Update

RUN, STEP = (profiling.Range(name, name, "loop") for name in ("run", "step"))
DATA = profiling.Range("data", "data")


class Trainer:
    """Trains a network.

    Args:
        network: trained in place.
        train: loader of the training batches; its order of an epoch depends on its seed alone. Any other collection of
            (x, t) batches, such as a torch DataLoader, is taken as ``training.data.batches.Batches``; an iterator, such
            as a generator, gives the batches of one epoch.
        test: loader for the evaluation after each epoch: unshuffled, with the largest batches that fit in memory.
        optimizer: an optimizer, or an ``Update`` that adds a schedule, clipping or a loss scale to one.
        epochs: at least 1.
        callbacks: see ``Callback``: ``EarlyStopping``, ``BestModel``, ``ProgressBar``, or your own.
        graph: on a GPU, run steps as CUDA graphs where they can be captured. The results have the same bits.
        metrics: measures of the test data after each epoch, next to loss and accuracy: ``training.models.metrics``, or
            their names, such as "top5", "f1", "confusion", "mae" or "r2". None means "mae" for a network that predicts
            numbers, else none.
        parts: compute a step's gradients in this many parts of its batch, one after the other, and add them up: it
            takes the memory of one part, and gives the gradients of the whole batch within rounding; but batch
            normalization normalizes each part by itself.
        ranks: the processes that train together (``training.distributed``): each batch of the loaders is cut among
            them, and each rank computes its share in ``parts``. All give the same arguments and call the same methods.
            Callbacks are called on all ranks: write and print on rank 0 alone.
        compress: "fp16" sends gradients between ranks as float16.
        sync_batch_norm: normalize batches by the statistics of all ranks: as one process does the whole batch.

    Attributes:
        update: the ``Update``.
        callbacks: all callbacks, the first of which is a ``NonFiniteWatch``.
        total_epochs: the number of epochs to train.
        history: one ``EpochResult`` an epoch.
        step: steps taken.
        samples: samples trained on.
        so_far: the ``EpochSoFar``: totals and time of the epoch under way, and the number of its batches that are done.
        is_stopped: a callback has called ``stop``.
        rows: the rows that this process has of the batch of the latest step.
        ranks: the processes that train together; an ``Alone`` for one process.
        is_in_step: a step has begun and not ended: the parameters may be half updated.
        position: epoch and batch of the latest step, both from 0, for ``train.batch``.
        random: the generator that the run draws from, forked from the current one (``backend.random``): other runs
            and threads leave it alone.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a number is out of its range, or a label is not one of the network's classes: the loader, the
            sample's index in the data set and the label are named.

    Examples:
        >>> import numpy as np
        >>> from training import SGD, CosineSchedule, EarlyStopping, Loader, Trainer, TwoLayerNet, Update
        >>> x = np.eye(4, dtype="float32").repeat(25, axis=0)
        >>> t = np.arange(4).repeat(25)
        >>> train, test = Loader(x, t, batch_size=10), Loader(x, t, batch_size=100, shuffle=False)
        >>> update = Update(SGD(), schedule=CosineSchedule(lr=1.0, steps=100), clip_norm=5.0)
        >>> trainer = Trainer(TwoLayerNet(4, 16, 4), train, test, update, epochs=10, callbacks=[EarlyStopping(3)])
        >>> trainer.train()[0].epoch
        1
        >>> trainer.best.test_accuracy
        1.0
    """

    def __init__(
        self,
        network: Network,
        train: Loader | Iterable,
        test: Loader | Iterable,
        optimizer: Optimizer | Update,
        *,
        epochs: int = 20,
        callbacks: Iterable[Callback] = (),
        graph: bool = True,
        metrics: Iterable[str | Metric] | None = None,
        parts: int = 1,
        ranks: Ranks | None = None,
        compress: str = "none",
        sync_batch_norm: bool = False,
    ) -> None:
        epochs, graph = checks.whole("epochs", epochs, 1, checks.LARGEST_SIZE), checks.flag("graph", graph)
        parts = checks.whole("parts", parts, 1, checks.LARGEST_SIZE)
        checks.instance("network", network, Network, "a Network")
        train, test = (
            as_loader(name, given, network, passes)
            for name, given, passes in (("train", train, epochs), ("test", test, None))
        )
        update = optimizer if isinstance(optimizer, Update) else Update(optimizer)
        if metrics is None:
            metrics = ["mae"] if network.last_layer.target_kind == "values" else []
        self.network = network
        self.exchange = exchange_of(ranks, network, compress, sync_batch_norm)
        self.ranks = Alone() if ranks is None else ranks
        self.train_loader = share_of(self.ranks, train)
        self.rows = Rows(0, 0, 0)
        self.test_loader = test
        self.update = update
        self.total_epochs = epochs
        self.parts = parts
        self.metrics = as_metrics(metrics, network.last_layer, network.classes)
        self.callbacks = [NonFiniteWatch(), *callbacks]
        self.history = History()
        self.step = 0
        self.samples = 0
        self.position = (0, 0)
        self.random = random.current().fork()
        self.so_far = EpochSoFar(array_module(network.params.flat))
        self.is_stopped = False
        self.is_in_step = False
        # A proxy, not a cycle: the memory of graphs is free as soon as the trainer is.
        me = weakref.proxy(self)
        self._graphs = (
            StepGraphs(me, lambda x, t: compute_step(me, x, t), self.so_far.totals)
            if graph and has_plain_parts(self)
            else None
        )

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of the update."""
        return self.update.optimizer

    @property
    def best(self) -> EpochResult | None:
        """The result of the epoch with the highest ``rank``, the first of equals; None before one has ended."""
        return max(self.history, key=lambda result: result.rank, default=None)

    def train(self, *, quiet: bool = False) -> History:
        """Run all epochs, as ``epochs`` does. Return the history.

        On a terminal (standard error) and in a notebook it shows a progress bar and a table of the epochs.

        Args:
            quiet: show nothing.
        """
        display = None if checks.flag("quiet", quiet) or self.ranks.rank else display_for(self)
        self.callbacks[1:1] = [display] if display else []
        try:
            for _ in self.epochs():
                pass
        finally:
            if display:
                self.callbacks.remove(display)
        return self.history

    def epochs(self) -> Generator[EpochResult, None, None]:
        """Run all epochs, or until a callback calls ``stop``: one for each ``next``, whose result is yielded.

        After an interruption it goes on where that was: an epoch that was begun continues with its next batch. Ctrl-C
        ends it between two steps, in a program with Python's own handler; a second Ctrl-C at once.

        Raises:
            KeyboardInterrupt: by Ctrl-C.
            NonFiniteError: the loss is infinite or NaN, a gradient (seen on the CPU), or a parameter before the first
                step. The parameters are those before the step where the loss could be read at once (on the CPU); on a
                GPU a few steps may have followed.
            OutOfMemoryError: a batch is too large, of the training or of the evaluation. The parameters are those
                after the last whole step. The failed step holds no memory: a trainer with smaller batches can go on.
        """
        try:
            begin_together(self)
            tell(self, "on_run_begin")
            with RUN:
                while len(self.history) < self.total_epochs and not self.is_stopped:
                    with stopping.whole_steps():
                        result = run_epoch(self, len(self.history) + 1)
                    yield result
        except GeneratorExit:  # the caller has left its loop
            raise
        except BaseException as error:
            tell(self, "on_exception", error)
            raise
        finally:
            tell(self, "on_run_end")
        self.is_stopped = False  # here, so that a run that had stopped when it was saved does not go on

    def steps(self, epoch: int, first: int = 0) -> Generator[int, None, None]:
        """Train on the batches of epoch 1, 2, …, one step for each ``next``; yield the number of steps taken in all.

        Callbacks are told of the epoch's beginning and of each step; there is no evaluation. Close the generator if
        you leave it early.

        Args:
            epoch: counted from 1.
            first: the batch to begin with, from 0; the totals of an epoch that goes on are kept.
        """
        if not first:
            self.so_far.begin(loss_scale(self)[1])
        tell(self, "on_epoch_begin", epoch)
        step_begins, step_ends = hooks(self, "on_step_begin"), hooks(self, "on_step_end")
        with random.using(self.random):
            batches = self.train_loader.epoch(epoch - 1, first)
        with closing(batches):
            index = first
            while index < len(self.train_loader):  # that of an iterator grows as its batches come
                self.position = (epoch - 1, index)
                for begin in step_begins:
                    begin(self, self.step + 1)
                with STEP, ignoring_overflow(self), random.using(self.random), self.random.back_on_error():
                    with DATA:
                        x, t = next(batches)
                    self.rows = rows_of(self.train_loader, index, len(t))
                    self.is_in_step = True
                    self._train_step(x, t)
                index += 1
                self.is_in_step, self.so_far.batches = False, index
                for end in step_ends:
                    end(self, self.step)
                check_stop(self)
                yield self.step

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint, to the same bits: ``train`` then continues with the step after it.

        The trainer must have been made with the same arguments as the one that was saved; ``epochs`` may be more.

        Args:
            path: a checkpoint, or the folder of a run or of checkpoints: then its newest.

        Raises:
            ValueError: the file is damaged or no checkpoint, or of another network, other data or another optimizer;
                nothing is changed.
            OSError: it cannot be read.
        """
        checkpoint.restore(self, checkpoint.read(path))

    def stop(self) -> None:
        """End the training after the current epoch; for callbacks."""
        self.is_stopped = True

    def running_totals(self) -> HostCopy:
        """Start to copy (sum of losses, correct, samples) of the epoch so far to the host; do not wait."""
        return copy_to_host(self.so_far.totals)

    def evaluate(self, loader: Loader) -> evaluation.Evaluation:
        """Return mean loss, accuracy and metrics over all samples of a loader, in evaluation mode.

        Raises:
            ValueError: a target is not one that the loss takes, such as a label that is not one of the classes.
            OutOfMemoryError: the loader's batches are too large.
        """

        def after_batch(scores: Array, t: Array) -> None:
            tell(self, "on_evaluation_step")
            if self.ranks.size == 1:
                stopping.check()

        tell(self, "on_evaluation_begin")
        with self.random.back_on_error():
            result = evaluation.evaluate(self.network, loader, after_batch, self.random, self.metrics, self.ranks)
        tell(self, "on_evaluation_end", result.loss, result.accuracy)
        return result

    def _repr_html_(self) -> str:
        return trainer_html(self)

    def _train_step(self, x: Array, t: Array) -> None:
        on_gradients = functools.partial(tell, self, "on_gradients")
        if self._graphs is not None and array_module(x) is not numpy:
            on_gradients(self._graphs.run(x, t))
        else:
            compute_step(self, x, t, on_gradients)
        if self.rows.whole < self.ranks.size:  # who had no row drew no number
            after = self.ranks.largest(self.random.state["position"], "compared how many numbers were drawn")
            self.random.state = {**self.random.state, "position": after}
        self.samples += self.rows.whole
        self.step += 1
