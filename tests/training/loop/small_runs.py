"""Trainings of a few steps that use everything a run has: dropout, running statistics, an optimizer's state."""

import numpy as np

import backend
from layers import Affine, BatchNormalization, Dropout, Relu, Sequential
from training import Adam, Callback, Loader, Network, Trainer, Update

SAMPLES, FEATURES, CLASSES = 50, 6, 3


class Every(Callback):
    """Calls a function after each step."""

    def __init__(self, function):
        self.function = function

    def on_step_end(self, trainer, step):
        self.function(trainer, step)


def small_data(samples, seed):
    """Samples whose class is the largest of their first three numbers."""
    x = np.random.default_rng(seed).standard_normal((samples, FEATURES)).astype("float32")
    return x, x[:, :CLASSES].argmax(axis=1)


def small_network(normalized=True, loss=None, dropout=0.3):
    middle = [BatchNormalization.of(8)] if normalized else []
    return Network(
        Sequential(Affine.of(FEATURES, 8), *middle, Relu(), Dropout(dropout), Affine.of(8, CLASSES)),
        (FEATURES,),
        loss=loss,
    )


def small_trainer(
    *,
    callbacks=(),
    epochs=2,
    dtype="float32",
    optimizer=None,
    seed=3,
    prefetch=2,
    batch=16,
    normalized=True,
    graph=True,
    parts=1,
    loss=None,
    dropout=0.3,
    **options,
):
    """Two epochs of batches of 16, 16, 16 and 2, and evaluations in three batches; the same for the same seed."""
    backend.random.seed(seed)
    network = small_network(normalized, loss, dropout).astype(dtype)
    return Trainer(
        network,
        Loader(*small_data(SAMPLES, 0), batch, seed=seed, dtype=dtype, prefetch=prefetch),
        Loader(*small_data(20, 1), 8, shuffle=False, dtype=dtype),
        Update(Adam(0.01) if optimizer is None else optimizer, **options),
        epochs=epochs,
        callbacks=callbacks,
        graph=graph,
        parts=parts,
    )


def numbers(result):
    """Return all of a result but its times."""
    timed = ("seconds", "images_per_second")
    return {name: value for name, value in result.as_dict().items() if name not in timed}
