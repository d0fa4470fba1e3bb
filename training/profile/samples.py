"""Trainer of any network on random samples, for a profile of its steps."""

from __future__ import annotations

from backend import allow_tf32, asnumpy, random
from training.data import Loader
from training.loop.settings import Settings
from training.loop.trainer import Trainer
from training.models import Network
from training.models.indices import check_examples
from training.optim import LossScaler, Update, optimizers
from training.profile.meter import example_batch


def trainer_of(network: Network, settings: Settings) -> Trainer:
    """Return a trainer of the network on one batch of random samples, with the settings' optimizer and precision.

    The network's dtype becomes that of the precision.

    Raises:
        DeviceError: the device has no TF32.
        ValueError: the network takes indices behind other layers.
    """
    check_examples(network)
    allow_tf32(settings.precision == "tf32")
    half = settings.precision == "fp16"
    random.seed(settings.seed)
    network.astype("float16" if half else "float32")
    x, t = map(asnumpy, example_batch(network, settings.batch_size))
    loader = Loader(x, t, settings.batch_size, seed=settings.seed, dtype=network.params.flat.dtype)
    optimizer = optimizers.by_name(settings.optimizer, settings.lr, settings.weight_decay)
    update = Update(optimizer, clip_norm=settings.clip_norm, scaler=LossScaler() if half else None)
    return Trainer(network, loader, loader, update, epochs=settings.epochs)
