"""Optimizers: each moves parameters against their gradients, in place.

Names, positional arguments and, but for Adam, formulas are those of *Deep Learning from Scratch*; ``weight_decay`` and
``eps`` are added by keyword. The book's own, which take single numbers, too, are in
``training.compat.book.optimizer``. ``training.optim.optimizer.Optimizer`` says what all have in common. In the
formulas θ is a parameter, g its gradient (plus weight_decay·θ) and η the learning rate ``lr``.
"""

import math
from typing import Any

from backend.checks import Hyperparameter, choice
from training.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent: θ ← θ - η g."""

    def __init__(self, lr: float = 0.01, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr=lr, weight_decay=weight_decay)

    device_formula = "p -= lr * g;"

    def _step(self, xp: Any, p: Any, g: Any, state: list[Any], scratch: list[Any]) -> None:
        (step,) = scratch
        xp.multiply(g, self.lr, out=step)
        xp.subtract(p, step, out=p)


class Momentum(Optimizer):
    """Gradient descent with momentum (Polyak 1964): v ← momentum·v - η g, θ ← θ + v.

    η is inside v, as in the book, so a change of ``lr`` acts on new gradients only.
    """

    slots = ("v",)
    device_formula = "v = v * momentum - g * lr; p += v;"
    momentum = Hyperparameter(least=0, below=1)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr=lr, momentum=momentum, weight_decay=weight_decay)

    def _step_scalars(self) -> dict[str, float]:
        return {"lr": self.lr, "momentum": self.momentum}

    def _step(self, xp: Any, p: Any, g: Any, state: list[Any], scratch: list[Any]) -> None:
        (v,), (step,) = state, scratch
        xp.multiply(g, self.lr, out=step)
        xp.multiply(v, self.momentum, out=v)
        xp.subtract(v, step, out=v)
        xp.add(p, v, out=p)


class Nesterov(Momentum):
    """Nesterov's accelerated gradient: v ← momentum·v - η g, θ ← θ + momentum·v - η g.

    The form with the gradient at the parameters themselves ("Simplified Nesterov Momentum", section 3.5 of
    Bengio, Boulanger-Lewandowski & Pascanu 2013).
    """

    scratch = 2
    device_formula = "v = v * momentum - g * lr; p -= g * lr - v * momentum;"

    def _step(self, xp: Any, p: Any, g: Any, state: list[Any], scratch: list[Any]) -> None:
        (v,), (step, ahead) = state, scratch
        xp.multiply(g, self.lr, out=step)
        xp.multiply(v, self.momentum, out=v)
        xp.subtract(v, step, out=v)
        xp.multiply(v, self.momentum, out=ahead)
        xp.subtract(step, ahead, out=step)
        xp.subtract(p, step, out=p)


class AdaGrad(Optimizer):
    """AdaGrad (Duchi, Hazan & Singer 2011): h ← h + g², θ ← θ - η g / (√h + eps)."""

    slots = ("h",)
    device_formula = "h += g * g; p -= g / (sqrt(h) + eps) * lr;"
    eps = Hyperparameter(above=0)

    def __init__(self, lr: float = 0.01, *, eps: float = 1e-7, weight_decay: float = 0.0) -> None:
        super().__init__(lr=lr, eps=eps, weight_decay=weight_decay)

    def _step_scalars(self) -> dict[str, float]:
        return {"lr": self.lr, "eps": self.eps}

    def _step(self, xp: Any, p: Any, g: Any, state: list[Any], scratch: list[Any]) -> None:
        (h,), (step,) = state, scratch
        xp.multiply(g, g, out=step)
        xp.add(h, step, out=h)
        self._scaled_step(xp, p, g, h, step)

    def _scaled_step(self, xp: Any, p: Any, g: Any, h: Any, step: Any) -> None:
        xp.sqrt(h, out=step)
        xp.add(step, self.eps, out=step)
        xp.divide(g, step, out=step)
        xp.multiply(step, self.lr, out=step)
        xp.subtract(p, step, out=p)


class RMSprop(AdaGrad):
    """RMSprop (Tieleman & Hinton 2012): h ← decay_rate·h + (1 - decay_rate) g², θ ← θ - η g / (√h + eps)."""

    device_formula = "h += (g * g - h) * rate; p -= g / (sqrt(h) + eps) * lr;"
    decay_rate = Hyperparameter(least=0, below=1)

    def __init__(
        self, lr: float = 0.01, decay_rate: float = 0.99, *, eps: float = 1e-7, weight_decay: float = 0.0
    ) -> None:
        Optimizer.__init__(self, lr=lr, decay_rate=decay_rate, eps=eps, weight_decay=weight_decay)

    def _step_scalars(self) -> dict[str, float]:
        return {"lr": self.lr, "eps": self.eps, "rate": 1.0 - self.decay_rate}

    def _step(self, xp: Any, p: Any, g: Any, state: list[Any], scratch: list[Any]) -> None:
        (h,), (step,) = state, scratch
        xp.multiply(g, g, out=step)
        _move_towards(xp, h, step, 1.0 - self.decay_rate)
        self._scaled_step(xp, p, g, h, step)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1).

    m ← beta1·m + (1 - beta1) g,   v ← beta2·v + (1 - beta2) g²,
    θ ← θ - η m̂ / (√v̂ + eps)   with m̂ = m / (1 - beta1^t) and v̂ = v / (1 - beta2^t).

    ``training.compat.book.optimizer.Adam`` has the book's 1e-7 beside the uncorrected √v: its steps for gradients
    below 1e-5 are much smaller in the beginning.
    """

    slots = ("m", "v")
    device_formula = (
        "m += (g - m) * rate1; v += (g * g - v) * rate2; step = m / (sqrt(v) + scaled_eps) * rate; p -= step;"
    )
    device_correction = (
        "step = calls - skipped[0]; const auto c = sqrt(-expm1(step * log_beta2)); "
        "const auto rate = lr * c / -expm1(step * log_beta1), scaled_eps = eps * c;"
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

    def _step(self, xp: Any, p: Any, g: Any, state: list[Any], scratch: list[Any]) -> None:
        step = self._adam_step(xp, g, state, scratch[0])
        xp.subtract(p, step, out=p)

    def _adam_step(self, xp: Any, g: Any, state: list[Any], step: Any) -> Any:
        m, v = state
        xp.subtract(g, m, out=step)
        xp.multiply(step, 1.0 - self.beta1, out=step)
        xp.add(m, step, out=m)
        xp.multiply(g, g, out=step)
        _move_towards(xp, v, step, 1.0 - self.beta2)
        scalars = self._step_scalars()
        xp.sqrt(v, out=step)
        xp.add(step, scalars["scaled_eps"], out=step)
        xp.divide(m, step, out=step)
        return xp.multiply(step, scalars["rate"], out=step)

    def _step_scalars(self) -> dict[str, float]:
        # m̂ / (√v̂ + eps) = m / (√v + eps·c) · c / (1 - beta1^t): the corrections cost no pass over the arrays.
        c = math.sqrt(1.0 - self.beta2**self._steps)
        rate = self.lr * c / (1.0 - self.beta1**self._steps)
        return {"rate": rate, "rate1": 1.0 - self.beta1, "rate2": 1.0 - self.beta2, "scaled_eps": self.eps * c}

    def _scaled_scalars(self) -> dict[str, float]:
        logs = {f"log_beta{i}": math.log(b) if b else -math.inf for i, b in ((1, self.beta1), (2, self.beta2))}
        rates = {"rate1": 1.0 - self.beta1, "rate2": 1.0 - self.beta2}
        return {"calls": self.t + 1, "lr": self.lr, "eps": self.eps, **logs, **rates}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    As ``Adam`` with g the bare gradient, and the decay beside the step:
    θ ← θ - η (m̂ / (√v̂ + eps) + weight_decay·θ). A schedule that sets ``lr`` scales both.
    """

    scratch = 2
    coupled_decay = False
    device_formula = Adam.device_formula.replace("p -= step", "p -= step + p * decay_rate")

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

    def _step(self, xp: Any, p: Any, g: Any, state: list[Any], scratch: list[Any]) -> None:
        step = self._adam_step(xp, g, state, scratch[0])
        decay = xp.multiply(p, self._step_scalars()["decay_rate"], out=scratch[1], dtype=step.dtype)
        xp.add(step, decay, out=step)
        xp.subtract(p, step, out=p)

    def _step_scalars(self) -> dict[str, float]:
        return super()._step_scalars() | {"decay_rate": self.lr * self.weight_decay}

    def _scaled_scalars(self) -> dict[str, float]:
        return super()._scaled_scalars() | {"decay_rate": self.lr * self.weight_decay}


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
"""The names that ``by_name`` knows."""


def by_name(name: str, lr: float | None = None, weight_decay: float | None = None) -> Optimizer:
    """The optimizer called ``name``, one of ``NAMES``; ``None`` keeps that optimizer's own default.

    Raises:
        ValueError: an unknown name, or a value that the optimizer refuses.
    """
    choice("name", name, NAMES)
    given = {"lr": lr, "weight_decay": weight_decay}
    return _BY_NAME[name](**{key: value for key, value in given.items() if value is not None})


def _move_towards(xp: Any, mean: Any, value: Any, rate: float) -> None:
    """A moving average: mean ← mean + rate (value - mean). Overwrites ``value``.

    Of (1 - rate) mean + rate value the two factors, rounded to float32, would no longer add up to 1.
    """
    xp.subtract(value, mean, out=value)
    xp.multiply(value, rate, out=value)
    xp.add(mean, value, out=mean)
