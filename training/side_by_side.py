"""Two devices train the same network from the same seed, step by step: where do they part?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from backend import asarray, asnumpy, random, use
from training.data import Loader, load
from training.models import DeepConvNet
from training.network import Network
from training.optimizers import SGD


@dataclass(frozen=True)
class Parting:
    """The first step (from 1) at which the two losses differ by more than the tolerance, and the first layer whose
    outputs then do; ``step`` is None where they never do. ``difference`` is the largest relative one of all steps.
    """

    steps: int
    difference: float
    step: int | None = None
    layer: str | None = None


def train_side_by_side(device: str, steps: int = 50, batch_size: int = 16, tolerance: float = 1e-2) -> Parting:
    """Trains a DeepConvNet on the CPU and on ``device`` for some steps, from the same seed and batches.

    Rounding alone makes the two differ, and training amplifies it: a difference of the loss below ``tolerance``
    (relative) counts as none.
    """
    data = load()
    loader = Loader(data.train_images, data.train_labels, batch_size)
    places = ("cpu", device)
    networks: list[Network] = []
    for place in places:
        with use(place):
            random.seed(0)
            networks.append(DeepConvNet())
    trainers = [SGD(0.01), SGD(0.01)]
    states = [random.default.state] * 2
    largest = 0.0
    for step in range(1, steps + 1):
        losses, before = [], [dict(state) for state in states]
        for i, place in enumerate(places):
            with use(place):
                random.default.state = states[i]
                x, t = loader.batch(0, step - 1)
                losses.append(float(asnumpy(networks[i].step_gradients(x, t))))
                states[i] = random.default.state
        difference = abs(losses[1] - losses[0]) / max(abs(losses[0]), 1e-3)
        if not difference <= tolerance:
            return Parting(steps, difference, step, _first_layer(networks, places, before, loader, step, tolerance))
        largest = max(largest, difference)
        for i, place in enumerate(places):
            with use(place):
                trainers[i].update(networks[i].params, networks[i].grads)
    return Parting(steps, largest)


def _first_layer(
    networks: list[Network], places: tuple[str, str], states: list[dict], loader: Loader, step: int, tolerance: float
) -> str:
    """The first layer whose outputs for the batch of ``step`` differ by more than ``tolerance`` of their largest."""
    outputs: list[list[numpy.ndarray]] = []
    for i, place in enumerate(places):
        with use(place):
            random.default.state = states[i]
            x: Any = asarray(loader.batch(0, step - 1)[0])
            outputs.append([])
            for layer in networks[i].layers.layers.values():
                x = layer.forward(x, True) if layer.takes_train_flg else layer.forward(x)  # type: ignore[call-arg]
                outputs[i].append(asnumpy(x).astype("float64"))
    for name, expected, actual in zip(networks[0].layers.layers, *outputs, strict=True):
        if not numpy.abs(actual - expected).max() <= tolerance * max(numpy.abs(expected).max(), 1e-30):
            return name
    return "the loss"
