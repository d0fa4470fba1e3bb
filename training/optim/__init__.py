"""Optimizers and what belongs to an update: schedules, clipping, loss scaling."""

from training.optim.clipping import clip_gradients
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import NAMES, SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop, by_name

__all__ = [
    "NAMES",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "LossScaler",
    "Momentum",
    "Nesterov",
    "RMSprop",
    "by_name",
    "clip_gradients",
]
