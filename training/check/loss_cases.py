"""The losses that ``xpnet check`` runs, besides plain softmax cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy

from backend import asarray
from backend.types import Array
from layers import HingeLoss, HuberLoss, Loss, MeanSquaredError, SigmoidWithLoss, SoftmaxWithLoss
from training.check.bounds import Bound
from training.check.loss_bounds import loss_bounds

SHAPE = SAMPLES, OUTPUTS = 300, 12

_LOSSES: tuple[tuple[str, Callable[[], Loss]], ...] = (
    ("loss, smoothed and weighted", lambda: SoftmaxWithLoss(0.1, [1 + place % 3 for place in range(OUTPUTS)], 5)),
    ("loss, sigmoid", SigmoidWithLoss),
    ("loss, squared", MeanSquaredError),
    ("loss, Huber", lambda: HuberLoss(1.5)),
    ("loss, hinge", HingeLoss),
)


def loss_cases() -> Iterator[tuple[str, Callable[[str], dict[str, Array]], Callable[[str], dict[str, Bound]]]]:
    """Yield the name of each loss, and functions of a dtype that run it and that compute its bounds on the CPU."""
    for operation, make in _LOSSES:
        yield operation, partial(_run, make), partial(_bounds, make)


def _inputs(loss: Loss, dtype: str) -> tuple[Array, Array]:
    """Return scores that are whole numbers, and targets."""
    generator = numpy.random.default_rng(0)
    x, t = generator.integers(-4, 5, SHAPE), generator.integers(0, OUTPUTS, SAMPLES)
    if loss.target_kind == "classes":
        return asarray(x.astype(dtype)), asarray(t.astype("int32"))
    targets = generator.integers(0, 2, SHAPE) if loss.target_kind == "labels" else generator.integers(-4, 5, SHAPE)
    return asarray(x.astype(dtype)), asarray(targets.astype("float32"))


def _run(make: Callable[[], Loss], dtype: str) -> dict[str, Array]:
    loss = make()
    return {"loss": loss.forward(*_inputs(loss, dtype)), "dx": loss.backward()}


def _bounds(make: Callable[[], Loss], dtype: str) -> dict[str, Bound]:
    bounds = loss_bounds(make(), *_inputs(make(), dtype))
    return {name: bounds[name] for name in ("loss", "dx")}
