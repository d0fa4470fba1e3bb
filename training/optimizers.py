"""The optimizers, under the name that book code imports them by; they live in ``training.optim``."""

from training.optim import NAMES, SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop, by_name

__all__ = ["NAMES", "SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Nesterov", "RMSprop", "by_name"]
