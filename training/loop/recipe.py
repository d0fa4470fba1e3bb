"""Build the network and the trainer that a run's settings describe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from backend import allow_tf32, random
from layers import Loss, SoftmaxWithLoss
from layers.losses import as_loss
from training.data import Data, Loader, Normalization
from training.data.augment import Augmentation, standard
from training.data.collection import Samples, normalized_targets
from training.data.inputs import AnyInputs
from training.data.pictures import Preparation
from training.loop.early_stopping import EarlyStopping
from training.loop.evaluation import Evaluation, Predictions, evaluate, predict
from training.loop.settings import EVALUATION_BATCH, EVALUATION_FACTOR, PARTS, Settings
from training.loop.trainer import Trainer
from training.loop.weight_average import WeightAverage
from training.models import Network, build_for
from training.models.indices import check_for_commands
from training.models.metric import Metric
from training.models.metrics import F1, R2, MeanAbsoluteError, PerClass
from training.optim import LossScaler, Update, optimizers, schedules

if TYPE_CHECKING:
    from training.distributed.communicator import Ranks

_LIKENESS_BYTES = 64 << 20
"""The most bytes of training images that their description is computed from."""


_LOSSES = {
    "classification": ("classes", "softmax"),
    "multi-label": ("labels", "sigmoid"),
    "regression": ("values", "mean-squared"),
}
"""What a network predicts for each kind of data, and its loss."""


def loss_for(data: Data, name: str | None = None, label_smoothing: float = 0.0) -> Loss:
    """Return the loss of that name, or by default the usual one for the data: softmax for classes, say.

    Raises:
        ValueError: the loss is not one for such data, or takes no label smoothing.
    """
    predicts, usual = _LOSSES[data.kind]
    name = name or usual
    if label_smoothing and name != "softmax":
        raise ValueError(f"label smoothing is for the softmax loss, got {label_smoothing:g} with {name}")
    loss = SoftmaxWithLoss(label_smoothing) if name == "softmax" else as_loss(name)
    if loss.target_kind != predicts:
        raise ValueError(f"the loss {name} is for {loss.target_kind}; {data.name} has {predicts} to predict")
    return loss


def build_network(model: str, data: Data, loss: Loss | None = None) -> Network:
    """Return the model called ``model`` in the size that the data needs, with initial weights.

    Its loss is by default that of ``loss_for(data)``. Its config names the data set and its classes, and has the
    normalization of its inputs.

    Raises:
        ValueError: the model cannot take inputs of this shape, or takes indices.
    """
    network = build_for(model, data.shape, data.outputs, loss or loss_for(data))
    check_for_commands(network)
    about: dict[str, Any] = {"dataset": data.name, "input_dim": list(data.shape)}
    if data.classes:
        about["classes"] = list(data.classes)
    if data.columns is not None:
        about["columns"], about["target"] = list(data.columns.features), data.columns.target
    if data.normalization is not None:
        about["normalization"] = data.normalization.as_config()
    if data.target_normalization is not None:
        about["target_normalization"] = data.target_normalization.as_config()
    network.config = {**(network.config or {}), **about}
    return network


def evaluated_part(settings: Settings, data: Data) -> str:
    """Return the part by which the best epoch is chosen: what the settings want, or the other if there is no such part.

    Raises:
        ValueError: there is neither.
    """
    for part in sorted(PARTS, key=lambda part: part != settings.best_on):
        if part in data.parts:
            return part
    raise ValueError(f"{data.name} has no samples to choose the best epoch by: expected a share above 0 for --val")


def build_trainer(
    settings: Settings, data: Data, graph: bool = True, ranks: Ranks | None = None, begun_with: int | None = None
) -> Trainer:
    """Return the trainer that the settings describe; the same for the same seed, bit for bit.

    It evaluates on ``evaluated_part(settings, data)``. ``graph`` is the trainer's: its results have the same bits
    either way.

    Args:
        ranks: the processes that train together; each computes as many samples of a step as the settings say.
        begun_with: how many ranks the run began with: a step keeps its samples where others go on; None means as many.
    """
    size = 1 if ranks is None else ranks.size
    begun_with = begun_with or size
    allow_tf32(settings.precision == "tf32")
    half = settings.precision == "fp16"
    dtype = "float16" if half else "float32"
    random.seed(settings.seed)
    loss = loss_for(data, settings.loss, settings.label_smoothing)
    network = build_network(settings.model_for(data.shape), data, loss).astype(dtype)
    batch = settings.batch_size * settings.accumulate * begun_with
    if settings.freeze is not None:
        network.freeze(*_names(settings.freeze))
    augment = build_augmentation(settings, data)
    train_loader = data.loader("train", batch, seed=settings.seed, dtype=dtype, augment=augment)
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
        data.loader(evaluated_part(settings, data), evaluation_batch(settings.batch_size), shuffle=False, dtype=dtype),
        update,
        epochs=settings.epochs,
        callbacks=[
            *([] if settings.ema is None else [WeightAverage(settings.ema)]),
            *([] if settings.patience is None else [EarlyStopping(settings.patience)]),
        ],
        graph=graph,
        parts=-(-settings.accumulate * begun_with // size),
        ranks=ranks,
        compress=settings.compress,
        sync_batch_norm=settings.sync_batch_norm,
        metrics=_metrics(settings, data),
    )


def _metrics(settings: Settings, data: Data) -> list[str | Metric]:
    """Return the metrics of the settings, by default R² for numbers; errors are in the unit of the numbers."""
    names = settings.metrics or (["r2"] if data.kind == "regression" else [])
    in_units = {metric.name: metric for metric in metrics_of_numbers(data.target_normalization)}
    return [in_units.get(name, name) for name in names]


def metrics_of_numbers(known: Normalization | None) -> list[Metric]:
    """Return R² and, for a single number to predict, the mean absolute error in its unit.

    Args:
        known: the normalization of the targets; None if they are not normalized.
    """
    if known is not None and len(known.std) > 1:  # they have several units
        return [R2()]
    return [R2(), MeanAbsoluteError(1.0 if known is None else float(known.std[0]))]


def measure(network: Network, samples: Loader, metrics: Sequence[str] = ()) -> Predictions | Evaluation:
    """Return a network's predictions of classes; or how well it predicts labels or numbers, by their usual metrics.

    Args:
        samples: unshuffled, normalized as the network's training data were.
        metrics: further ones, by name.

    Raises:
        ValueError: the samples do not fit the network, or a metric does not measure it.
        NonFiniteError: the loss of predicted classes is infinite or NaN.
        OutOfMemoryError: the loader's batches are too large.
    """
    kind = network.last_layer.target_kind
    if kind == "classes":
        return predict(network, samples, metrics)
    usual = metrics_of_numbers(target_normalization_of(network)) if kind == "values" else [F1(), PerClass()]
    names = {metric.name for metric in usual}
    return evaluate(network, samples, metrics=[*usual, *(name for name in metrics if name not in names)])


def build_augmentation(settings: Settings, data: Data) -> Augmentation | None:
    """Return the random changes of training samples that the settings name; None for none.

    Raises:
        ValueError: there are no such changes, or they are not for these data.
    """
    if settings.augment is None:
        return None
    usual = standard(data.shape)
    names = usual if settings.augment == "standard" else _names(settings.augment)
    if data.kind != "classification" and {"mixup", "cutmix"} & set(names):
        raise ValueError(f"mixup and cutmix mix classes; the targets of {data.name} are for {data.kind}")
    return Augmentation(names, data.outputs, len(data.train), settings.seed)


def _names(text: str) -> list[str]:
    """Return names that have commas, and perhaps spaces, between them."""
    return [name.strip() for name in text.split(",")]


def normalization_of(network: Network) -> Normalization | None:
    """Return the normalization that a network's config has for its inputs; None if they are not normalized.

    Raises:
        ValueError: it is damaged.
    """
    config = network.config or {}
    shape = config.get("input_dim", network.input_dim)
    known = config.get("normalization")
    return None if known is None else Normalization.from_config(known, shape[0 if len(shape) == 3 else -1])


def target_normalization_of(network: Network) -> Normalization | None:
    """Return how the numbers that a network predicts were normalized; None if they were not.

    Raises:
        ValueError: the network's config is damaged.
    """
    known = (network.config or {}).get("target_normalization")
    return None if known is None else Normalization.from_config(known, network.classes)


def loader_for(network: Network, samples: Samples, batch_size: int) -> Loader:
    """Return a loader that gives samples in their order, normalized as the network's training data were.

    Raises:
        ValueError: the network's config is damaged, or the samples are none that a ``Loader`` takes.
    """
    return Loader(
        samples.inputs,
        normalized_targets(samples.targets, target_normalization_of(network)),
        batch_size,
        shuffle=False,
        dtype=network.params.flat.dtype,
        normalization=normalization_of(network),
    )


def evaluation_batch(batch_size: int) -> int:
    """Return the number of samples in a batch of the evaluation, for a batch size of the training."""
    return min(EVALUATION_BATCH, EVALUATION_FACTOR * batch_size)


def describe_input(network: Network, data: Data) -> None:
    """Add to a network's config how to prepare pictures for it, and what its training images are like."""
    if len(data.shape) == 3:
        about_input = Preparation.describe(data.name, _some(data.train.inputs))
        network.config = {**(network.config or {}), "input": about_input}


def _some(inputs: AnyInputs) -> numpy.ndarray:
    """Return the inputs, or so many of a large number, evenly chosen, that memory holds them."""
    if isinstance(inputs, numpy.ndarray):
        return inputs
    size = max(1, inputs[:1].nbytes)
    return inputs[:: -(-len(inputs) * size // _LIKENESS_BYTES)]
