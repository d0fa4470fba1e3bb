"""Optimizers, schedules, gradient clipping, loss scaling, and the update that joins them."""

from training.optim.clipping import clip_gradients
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import NAMES, SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop, by_name
from training.optim.update import Update

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
    "Update",
    "by_name",
    "clip_gradients",
]
