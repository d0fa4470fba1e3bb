"""The optimizers of the book's ``common.optimizer``, with its formulas.

``update(params, grads)`` changes the arrays in ``params`` in place, and replaces numbers (``params = {"x": -7.0}``).
Both are dictionaries; ``grads`` may have further entries. The book's Adam divides by √v + 1e-7 with the uncorrected
second moment, ``training.optim.Adam`` by √v̂ + 1e-8 with the corrected one. At a rate of 0.001 the first step for a
gradient of 1e-6 is 0.00024 with the former and 0.00099 with the latter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy

from backend import array_module
from layers.compat.book import np

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "np"]

Params = MutableMapping[str, Any]
Grads = Mapping[str, Any]
State = dict[str, Any]

EPSILON = 1e-7


class SGD:
    """Stochastic gradient descent: θ ← θ - η g."""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr

    def update(self, params: Params, grads: Grads) -> None:
        """Make one step.

        Raises:
            KeyError: ``grads`` lacks a parameter.
            TypeError: a parameter is an array of integers.
            ValueError: a gradient has another shape than its array, or the optimizer has trained other parameters.
            Nothing is changed by an error.
        """
        _ready(params, grads)
        for key in params:
            params[key] -= self.lr * grads[key]


class Momentum:
    """Gradient descent with momentum: v ← momentum·v - η g, θ ← θ + v."""

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr = lr
        self.momentum = momentum
        self.v: State | None = None

    def update(self, params: Params, grads: Grads) -> None:
        """Make one step; see ``SGD.update``."""
        (self.v,) = _ready(params, grads, self.v)
        for key in params:
            self.v[key] = self.momentum * self.v[key] - self.lr * grads[key]
            params[key] += self.v[key]


class Nesterov:
    """Nesterov's accelerated gradient (Bengio, Boulanger-Lewandowski and Pascanu, 2013).

    θ ← θ + momentum²·v - (1 + momentum)·η g, then v ← momentum·v - η g.
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr = lr
        self.momentum = momentum
        self.v: State | None = None

    def update(self, params: Params, grads: Grads) -> None:
        """Make one step; see ``SGD.update``."""
        (self.v,) = _ready(params, grads, self.v)
        for key in params:
            params[key] += self.momentum * self.momentum * self.v[key]
            params[key] -= (1 + self.momentum) * self.lr * grads[key]
            self.v[key] *= self.momentum
            self.v[key] -= self.lr * grads[key]


class AdaGrad:
    """AdaGrad (Duchi, Hazan and Singer, 2011): h ← h + g², θ ← θ - η g / (√h + 1e-7)."""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr
        self.h: State | None = None

    def update(self, params: Params, grads: Grads) -> None:
        """Make one step; see ``SGD.update``."""
        (self.h,) = _ready(params, grads, self.h)
        for key in params:
            self.h[key] += grads[key] * grads[key]
            params[key] -= self.lr * grads[key] / (numpy.sqrt(self.h[key]) + EPSILON)


class RMSprop:
    """RMSprop (Tieleman and Hinton, 2012): h ← decay_rate·h + (1 - decay_rate) g², θ ← θ - η g / (√h + 1e-7)."""

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        self.lr = lr
        self.decay_rate = decay_rate
        self.h: State | None = None

    def update(self, params: Params, grads: Grads) -> None:
        """Make one step; see ``SGD.update``."""
        (self.h,) = _ready(params, grads, self.h)
        for key in params:
            self.h[key] *= self.decay_rate
            self.h[key] += (1 - self.decay_rate) * grads[key] * grads[key]
            params[key] -= self.lr * grads[key] / (numpy.sqrt(self.h[key]) + EPSILON)


class Adam:
    """Adam (Kingma and Ba, 2015) in the form at the end of section 2, with 1e-7 added to the uncorrected √v.

    m ← m + (1 - beta1)(g - m),   v ← v + (1 - beta2)(g² - v),
    θ ← θ - η_t m / (√v + 1e-7)   with η_t = η √(1 - beta2^t) / (1 - beta1^t).
    """

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.iter = 0
        self.m: State | None = None
        self.v: State | None = None

    def update(self, params: Params, grads: Grads) -> None:
        """Make one step; see ``SGD.update``."""
        self.m, self.v = _ready(params, grads, self.m, self.v)
        self.iter += 1
        lr_t = self.lr * math.sqrt(1.0 - self.beta2**self.iter) / (1.0 - self.beta1**self.iter)
        for key in params:
            self.m[key] += (1 - self.beta1) * (grads[key] - self.m[key])
            self.v[key] += (1 - self.beta2) * (grads[key] ** 2 - self.v[key])
            params[key] -= (
                lr_t * self.m[key] / (numpy.sqrt(self.v[key]) + EPSILON)
            )  # NumPy's function calls CuPy's for its arrays


def _ready(params: Params, grads: Grads, *states: State | None) -> list[State]:
    """Check that every parameter can take a step, and return the states, zeros at first.

    Raises:
        KeyError: ``grads`` lacks a parameter.
        TypeError: a parameter is an array of integers.
        ValueError: a gradient has another shape than its array, or the state belongs to other parameters.
    """
    for key, value in params.items():
        if key not in grads:
            given = ", ".join(map(repr, grads)) or "none"
            raise KeyError(f"grads lacks the parameter {key!r}; it has {given}")
        if not _is_array(value):
            continue
        if value.dtype.kind != "f":
            raise TypeError(f"the parameter {key!r} must be a floating array, got {value.dtype}")
        if numpy.shape(grads[key]) not in ((), value.shape):
            raise ValueError(f"the gradient of {key!r} must have shape {value.shape}, got {numpy.shape(grads[key])}")
        for state in states:
            if state is not None and (key not in state or numpy.shape(state[key]) != value.shape):
                raise ValueError(
                    f"the optimizer has trained other parameters: it has no state for {key!r} of shape {value.shape}"
                )
    return [_zeros(params) if state is None else state for state in states]


def _zeros(params: Params) -> State:
    return {key: array_module(value).zeros_like(value) if _is_array(value) else 0.0 for key, value in params.items()}


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and not isinstance(value, numpy.generic)
