"""Optimizers: each moves parameters against their gradients, in place.

Names, positional arguments and, except for Adam, formulas are those of *Deep Learning from Scratch*; ``weight_decay``
and ``eps`` are keywords. ``training.compat.book.optimizer`` has the book's own optimizers, which also take single
numbers. ``training.optim.optimizer.Optimizer`` describes what all have in common. In the formulas θ is a parameter, g
its gradient (plus weight_decay·θ) and η the learning rate ``lr``.
"""

import math

from backend.checks import Hyperparameter, choice
from kernels import optimizers as compiled
from training.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent: θ ← θ - η g.

    Examples:
        >>> from backend import xp
        >>> from training import SGD
        >>> params = {"W": xp.array([1.0, 2.0])}
        >>> SGD(lr=0.5).update(params, {"W": xp.array([2.0, -2.0])})
        >>> params["W"].tolist()
        [0.0, 3.0]
    """

    formula = "p -= lr * g;"
    kernel = compiled.SGD

    def __init__(self, lr: float = 0.01, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr=lr, weight_decay=weight_decay)


class Momentum(Optimizer):
    """Gradient descent with momentum (Polyak 1964): v ← momentum·v - η g, θ ← θ + v.

    η is inside v, as in the book, so a change of ``lr`` acts on new gradients only.

    Examples:
        >>> from backend import xp
        >>> from training import Momentum
        >>> optimizer, params, grads = Momentum(lr=0.5, momentum=0.5), {"W": xp.zeros(1)}, {"W": xp.ones(1)}
        >>> for _ in range(3):
        ...     optimizer.update(params, grads)
        ...     params["W"].tolist()
        [-0.5]
        [-1.25]
        [-2.125]
    """

    slots = ("v",)
    formula = "v *= momentum; v -= g * lr; p += v;"
    kernel = compiled.MOMENTUM
    momentum = Hyperparameter(least=0, below=1)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr=lr, momentum=momentum, weight_decay=weight_decay)


class Nesterov(Momentum):
    """Nesterov's accelerated gradient: v ← momentum·v - η g, θ ← θ + momentum·v - η g.

    The form with the gradient at the parameters themselves ("Simplified Nesterov Momentum", section 3.5 of
    Bengio, Boulanger-Lewandowski & Pascanu 2013).
    """

    formula = "v *= momentum; v -= g * lr; p -= g * lr - v * momentum;"
    kernel = compiled.NESTEROV


class AdaGrad(Optimizer):
    """AdaGrad (Duchi, Hazan & Singer 2011): h ← h + g², θ ← θ - η g / (√h + eps)."""

    slots = ("h",)
    formula = "h += g * g; p -= g / (sqrt(h) + eps) * lr;"
    kernel = compiled.ADAGRAD
    eps = Hyperparameter(above=0)

    def __init__(self, lr: float = 0.01, *, eps: float = 1e-7, weight_decay: float = 0.0) -> None:
        super().__init__(lr=lr, eps=eps, weight_decay=weight_decay)


class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton 2012): h ← decay_rate·h + (1 - decay_rate) g², θ ← θ - η g / (√h + eps)."""

    slots = ("h",)
    formula = "h += (g * g - h) * rate; p -= g / (sqrt(h) + eps) * lr;"
    kernel = compiled.RMSPROP
    decay_rate = Hyperparameter(least=0, below=1)
    eps = Hyperparameter(above=0)

    def __init__(
        self, lr: float = 0.01, decay_rate: float = 0.99, *, eps: float = 1e-7, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr=lr, decay_rate=decay_rate, eps=eps, weight_decay=weight_decay)

    def _numbers(self, t: int | None, lr: float, weight_decay: float) -> dict[str, float]:
        return {"lr": lr, "eps": self.eps, "rate": 1.0 - self.decay_rate}


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1).

    m ← beta1·m + (1 - beta1) g,   v ← beta2·v + (1 - beta2) g²,
    θ ← θ - η m̂ / (√v̂ + eps)   with m̂ = m / (1 - beta1^t) and v̂ = v / (1 - beta2^t).

    ``training.compat.book.optimizer.Adam`` has the book's 1e-7 beside the uncorrected √v: its steps for gradients
    below 1e-5 are much smaller in the beginning.

    Examples:
        >>> from backend import xp
        >>> from training import Adam
        >>> params = {"W": xp.array([1.0, 1.0])}
        >>> Adam(lr=0.25).update(params, {"W": xp.array([1000.0, -0.01])})
        >>> [round(float(w), 4) for w in params["W"]]  # a first step has the size of lr, whatever the gradient
        [0.75, 1.25]
    """

    slots = ("m", "v")
    # Of (1 - rate)·m + rate·g the two factors, rounded to float32, would no longer add up to 1.
    formula = "m += (g - m) * rate1; v += (g * g - v) * rate2; step = m / (sqrt(v) + scaled_eps) * rate; p -= step;"
    kernel = compiled.ADAM
    correction = (
        "const auto c = sqrt(-expm1(t * log_beta2)); "
        "const auto rate = lr * c / -expm1(t * log_beta1), scaled_eps = eps * c;"
    )
    beta1 = Hyperparameter(least=0, below=1)
    beta2 = Hyperparameter(least=0, below=1)
    eps = Hyperparameter(above=0)

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        *,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)

    def _numbers(self, t: int | None, lr: float, weight_decay: float) -> dict[str, float]:
        beta1, beta2, eps = self.beta1, self.beta2, self.eps
        rates = {"rate1": 1.0 - beta1, "rate2": 1.0 - beta2}
        if t is None:
            logs = {f"log_beta{i}": math.log(beta) if beta else -math.inf for i, beta in ((1, beta1), (2, beta2))}
            return {"lr": lr, "eps": eps, **logs, **rates}
        # m̂ / (√v̂ + eps) = m / (√v + eps·c) · c / (1 - beta1^t): the corrections cost no pass over the arrays.
        c = math.sqrt(1.0 - beta2**t)
        return {"rate": lr * c / (1.0 - beta1**t), "scaled_eps": eps * c, **rates}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    As ``Adam`` with g the bare gradient, and the decay added to the step:
    θ ← θ - η (m̂ / (√v̂ + eps) + weight_decay·θ). A schedule that sets ``lr`` scales both.
    """

    formula = (
        "m += (g - m) * rate1; v += (g * g - v) * rate2; "
        "step = m / (sqrt(v) + scaled_eps) * rate; p -= step + p * decay_rate;"
    )
    kernel = compiled.ADAMW
    coupled_decay = False

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        *,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps=eps, weight_decay=weight_decay)

    def _numbers(self, t: int | None, lr: float, weight_decay: float) -> dict[str, float]:
        return {**super()._numbers(t, lr, weight_decay), "decay_rate": lr * weight_decay}


_BY_NAME: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}
NAMES = tuple(_BY_NAME)
"""The names that ``by_name`` accepts."""


def by_name(name: str, lr: float | None = None, weight_decay: float | None = None) -> Optimizer:
    """Return the optimizer called ``name``, one of ``NAMES``; ``None`` keeps that optimizer's own default.

    Raises:
        ValueError: an unknown name, or a value that the optimizer refuses.

    Examples:
        >>> from training.optim import by_name
        >>> by_name("momentum", lr=0.1)
        Momentum(lr=0.1, momentum=0.9, weight_decay=0)
    """
    choice("name", name, NAMES)
    given = {"lr": lr, "weight_decay": weight_decay}
    return _BY_NAME[name](**{key: value for key, value in given.items() if value is not None})
