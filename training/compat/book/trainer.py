"""The training loop of the book's ``common.trainer``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from backend.types import Array
from layers.compat.book import np
from training.compat.book.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "Trainer", "np", "os", "sys"]

_OPTIMIZERS = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "adam": Adam,
}


class Trainer:
    """Training loop with batches drawn at random, with replacement, that prints its progress.

    Args:
        network: an object with ``params``, ``gradient(x, t)``, ``loss(x, t)`` and ``accuracy(x, t)``.
        x_train, t_train, x_test, t_test: samples and labels; batches are drawn from the first two.
        epochs: number of epochs; in each, as many samples are drawn as there are.
        mini_batch_size: samples in a batch.
        optimizer: ``"SGD"``, ``"Momentum"``, ``"Nesterov"``, ``"AdaGrad"``, ``"RMSprop"`` or ``"Adam"``, in any case.
        optimizer_param: its arguments.
        evaluate_sample_num_per_epoch: number of samples of each set that accuracies are measured on; None for all.
        verbose: print the loss of each step and the accuracies of each epoch.

    Attributes:
        train_loss_list: the loss of each step, after it.
        train_acc_list, test_acc_list: the accuracies, after the first step of each epoch.

    The library's own loop is ``training.Trainer``: in it every epoch visits every sample, and nothing waits for the
    device.

    Raises:
        ValueError: the optimizer is unknown, or there are no training samples.
    """

    def __init__(
        self,
        network: Any,
        x_train: Array,
        t_train: Array,
        x_test: Array,
        t_test: Array,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: Mapping[str, float] = MappingProxyType({"lr": 0.01}),
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
    ) -> None:
        if optimizer.lower() not in _OPTIMIZERS:
            raise ValueError(f"unknown optimizer {optimizer!r}: expected one of {', '.join(_OPTIMIZERS)}")
        if not x_train.shape[0]:
            raise ValueError("Trainer needs at least one training sample, got none")
        self.network = network
        self.verbose = verbose
        self.x_train = x_train
        self.t_train = t_train
        self.x_test = x_test
        self.t_test = t_test
        self.epochs = epochs
        self.batch_size = mini_batch_size
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.optimizer = _OPTIMIZERS[optimizer.lower()](**optimizer_param)
        self.train_size = x_train.shape[0]
        self.iter_per_epoch = max(self.train_size / mini_batch_size, 1)  # may be a fraction, as in the book
        self.max_iter = int(epochs * self.iter_per_epoch)
        self.current_iter = 0
        self.current_epoch = 0
        self.train_loss_list: list[Any] = []
        self.train_acc_list: list[Any] = []
        self.test_acc_list: list[Any] = []

    def train_step(self) -> None:
        """Make one step; at the beginning of an epoch measure the accuracies."""
        batch = np.random.choice(self.train_size, self.batch_size)
        x, t = self.x_train[batch], self.t_train[batch]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        loss = self.network.loss(x, t)
        self.train_loss_list.append(loss)
        self._say(f"train loss:{loss}")
        if self.current_iter % self.iter_per_epoch == 0:
            self.current_epoch += 1
            self._measure()
        self.current_iter += 1

    def train(self) -> None:
        """Make all steps, and measure the accuracy on the whole test set."""
        for _ in range(self.max_iter):
            self.train_step()
        accuracy = self.network.accuracy(self.x_test, self.t_test)
        self._say(f"=============== Final Test Accuracy ===============\ntest acc:{accuracy}")

    def _measure(self) -> None:
        count = self.evaluate_sample_num_per_epoch
        train = self.network.accuracy(self.x_train[:count], self.t_train[:count])
        test = self.network.accuracy(self.x_test[:count], self.t_test[:count])
        self.train_acc_list.append(train)
        self.test_acc_list.append(test)
        self._say(f"=== epoch:{self.current_epoch}, train acc:{train}, test acc:{test} ===")

    def _say(self, text: str) -> None:
        if self.verbose:
            print(text)
