"""Build the network and the trainer that a run's settings describe."""

from __future__ import annotations

from backend import allow_tf32, random
from training.data import Dataset, Loader
from training.data.pictures import Preparation
from training.loop.early_stopping import EarlyStopping
from training.loop.settings import EVALUATION_BATCH, EVALUATION_FACTOR, Settings
from training.loop.trainer import Trainer
from training.models import Network, build_for
from training.optim import LossScaler, Update, optimizers, schedules


def build_network(model: str, data: Dataset) -> Network:
    """Return the model called ``model`` in the size that the data needs, with initial weights.

    Its config names the data set and its classes.

    Raises:
        ValueError: the model cannot take images of this size.
    """
    network = build_for(model, data.input_dim, len(data.classes))
    about_data = {"dataset": data.name, "classes": list(data.classes), "input_dim": list(data.input_dim)}
    network.config = {**(network.config or {}), **about_data}
    return network


def build_trainer(settings: Settings, data: Dataset, graph: bool = True) -> Trainer:
    """Return the trainer that the settings describe; the same for the same seed, bit for bit.

    ``graph`` is the trainer's: its results have the same bits either way.
    """
    allow_tf32(settings.precision == "tf32")
    half = settings.precision == "fp16"
    dtype = "float16" if half else "float32"
    random.seed(settings.seed)
    network = build_network(settings.model, data).astype(dtype)
    batch = settings.batch_size * settings.accumulate
    train_loader = Loader(data.train_images, data.train_labels, batch, seed=settings.seed, dtype=dtype)
    evaluation_batch = min(EVALUATION_BATCH, EVALUATION_FACTOR * settings.batch_size)
    optimizer = optimizers.by_name(settings.optimizer, settings.lr, settings.weight_decay)
    update = Update(
        optimizer,
        schedule=schedules.by_name(settings.schedule, optimizer.lr, settings.epochs * len(train_loader)),
        clip_norm=settings.clip_norm,
        scaler=LossScaler() if half else None,
    )
    return Trainer(
        network,
        train_loader,
        Loader(data.test_images, data.test_labels, evaluation_batch, shuffle=False, dtype=dtype),
        update,
        epochs=settings.epochs,
        callbacks=[] if settings.patience is None else [EarlyStopping(settings.patience)],
        graph=graph,
        parts=settings.accumulate,
    )


def describe_input(network: Network, data: Dataset) -> None:
    """Add to a network's config how to prepare pictures for it, and what its training images are like."""
    about_input = Preparation.describe(data.name, data.train_images)
    network.config = {**(network.config or {}), "input": about_input}
