"""Check the backward of a layer or network against central differences along random directions, in float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy

from backend import asarray, is_array, random
from backend.checks import instance, real, refusal
from backend.types import Array
from layers import Layer
from training.models import Network

EPSILON = float(numpy.finfo("float64").eps)


@dataclass(frozen=True)
class GradientError:
    """The error of one gradient along a random direction.

    Attributes:
        name: of the parameter, or "input".
        backward: the derivative by backward.
        numerical: the derivative by central differences.
        noise: the possible error of the difference quotient itself: rounding, and the third derivative.
        flaw: why the two cannot be compared, such as a gradient of another shape; "" if they can.
    """

    name: str
    backward: float
    numerical: float
    noise: float = 0.0
    flaw: str = ""

    @property
    def relative(self) -> float:
        """The relative error beyond the noise: max(|b - n| - noise, 0) / max(|b|, |n|)."""
        if self.flaw:
            return numpy.inf
        beyond = abs(self.backward - self.numerical) - self.noise
        return 0.0 if beyond <= 0 else beyond / max(abs(self.backward), abs(self.numerical))


def gradient_check(
    model: Layer | Network,
    x: Array,
    t: Array | None = None,
    *,
    tolerance: float = 1e-6,
    step: float = 1e-5,
    seed: int = 0,
) -> list[GradientError]:
    """Check the backward of a layer or network against central differences along random directions.

    A copy of the model is checked, converted to float64; the model and the random state are not changed. For
    a layer the function is Σ forward(x)·r with a random r; for a network, its loss. With a direction d of unit
    length, the input and each parameter p must satisfy ∇f·d = (f(p + step·d) - f(p - step·d)) / (2·step). Layers
    with a kink, such as ReLU, may fail if an input lies within ``step`` of it: check at another x then.

    Args:
        model: a layer with ``params``, ``forward`` and ``backward``, or a network.
        x: the input; floating.
        t: the labels; for a network only.
        tolerance: largest relative error allowed, beyond the noise of the difference quotient (about 1e-9 of the
            function's size).
        step: of the difference quotient.
        seed: of the random directions.

    Returns:
        One ``GradientError`` for the input (of a layer) and one for each parameter.

    Raises:
        AssertionError: a gradient is wrong; the message lists all that are.
        TypeError: an argument has the wrong type.
        ValueError: a number is out of range; or ``t`` is missing for a network or given for a layer.

    Examples:
        >>> from backend import xp
        >>> from layers import Affine
        >>> from training import gradient_check
        >>> [error.name for error in gradient_check(Affine.of(3, 2), xp.arange(6.0).reshape(2, 3))]
        ['input', 'W', 'b']
    """
    instance("model", model, (Layer, Network), "a layer or a network")
    tolerance, step = real("tolerance", tolerance, least=0), real("step", step, above=0, most=1)
    generator = random.Generator(seed, stream=1)
    if not is_array(x) and not isinstance(x, (list, tuple, float, int)):
        raise refusal(TypeError, "x", "an array of numbers", x)
    if isinstance(model, Network) == (t is None):
        raise ValueError("gradient_check needs labels t for a network, and takes none for a layer")
    kept = random.current().state
    try:
        errors = _check(model, asarray(x, "float64").copy(), t, step, generator)
    finally:
        random.current().state = kept
    wrong = [e for e in errors if not e.relative <= tolerance]
    if wrong:
        lines = [f"  {e.name}: {e.flaw or f'backward {e.backward:.9g}, numerical {e.numerical:.9g}'}" for e in wrong]
        name = type(model).__name__
        raise AssertionError(f"gradients of {name} off by more than {tolerance:g} (relative):\n" + "\n".join(lines))
    return errors


def _owe_input_gradients(layer: Layer) -> None:
    layer.input_gradient = True
    for _, sublayer in layer.sublayers():
        _owe_input_gradients(sublayer)


def _check(model: Any, x: Array, t: Array | None, step: float, generator: random.Generator) -> list[GradientError]:
    network = isinstance(model, Network)
    layers = copy.deepcopy(model.layers if network else model).astype("float64")
    _owe_input_gradients(layers)
    own: Any = Network(layers, model.input_dim) if network else layers
    start, state = random.current().state, {name: array.copy() for name, array in own.state.items()}

    def restart() -> None:
        random.current().state = start  # dropout must drop the same elements every time
        for name, array in own.state.items():
            array[...] = state[name]

    if network:

        def function() -> Array:
            restart()
            return own.loss(x, t, train_flg=True)

        restart()
        gradients: dict[str, Array] = dict(own.gradient(x, t))
        targets = dict(own.params)
    else:
        restart()
        weights = generator.normal(own.forward(x).shape, dtype="float64")

        def function() -> Array:
            restart()
            return (own.forward(x) * weights).sum()

        function()
        gradients = {"input": own.backward(weights), **own.grads}
        targets = {"input": x, **own.params}

    errors = []
    size = 0.0 if network else float(abs(own.forward(x) * weights).sum())  # of the terms, which may cancel
    for name, target in targets.items():
        gradient = gradients.get(name)
        if getattr(gradient, "shape", None) != target.shape:
            errors.append(GradientError(name, numpy.nan, numpy.nan, flaw=f"{_shown(gradient)}, need {target.shape}"))
            continue
        direction = generator.normal(target.shape, dtype="float64")
        direction /= max(float((direction * direction).sum()) ** 0.5, numpy.finfo("float64").tiny)
        original = target.copy()
        target[...] = original + step * direction
        above = float(function())
        target[...] = original - step * direction
        below = float(function())
        target[...] = original
        backward, numerical = float((gradient * direction).sum()), (above - below) / (2 * step)
        # Rounding gives eps·|f| / step, the quotient's error about step²·|f'''|: near 1e-10 each at a step of 1e-5.
        noise = (8 * EPSILON / step + 4 * step**2) * max(abs(above), abs(below), size)
        errors.append(GradientError(name, backward, numerical, noise))
    return errors


def _shown(gradient: Any) -> str:
    return "no gradient" if gradient is None else f"a gradient of shape {getattr(gradient, 'shape', None)}"
