"""What each layer of a network takes in each phase of a real training step: time, or anything else that a meter counts.

The step is the one that training makes: a Relu that is done along with the layer before it counts for that layer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy

from backend import asarray, random, synchronize, threads
from layers import Layer, Sequential
from layers.base import walk
from training.models.network import Network
from training.optim.loss_scaling import LossScaler
from training.optim.optimizer import Optimizer

LOSS, OPTIMIZER = "loss", "optimizer"
"""What the table calls the two that are no layers of the network."""

Readings = dict[tuple[str, str], Any]
"""What was read, by layer (``"Residual1.body.Convolution1"``) and phase: forward, backward, or update."""


def example_batch(network: Network, samples: int) -> tuple[Any, Any]:
    """Random samples and labels for a network, on the active device, in the network's dtype."""
    x = random.uniform((samples, *network.input_dim)).astype(network.params.flat.dtype, copy=False)
    return x, asarray(numpy.arange(samples, dtype="int32") % network.classes)


def named_layers(network: Network) -> Iterator[tuple[str, Layer]]:
    """All layers that do work of their own, the loss among them, by the names of their places in the model."""
    for place, layer in walk(network.layers):
        if type(layer) is not Sequential:  # which does nothing but to call its layers
            yield place, layer
    yield LOSS, network.last_layer


def phases_of_a_step(
    network: Network, optimizer: Optimizer, x: Any, t: Any, read: Callable[[], Any], scaler: LossScaler | None = None
) -> Readings:
    """Makes one training step, and reads a meter where layers begin and end.

    Args:
        network, optimizer: they make the step: parameters change.
        x, t: a batch and its labels, on the active device.
        read: the meter, such as a clock: what it returns can be subtracted from a later reading. What a layer's
            sublayers take is not counted again for the layer.
        scaler: for a float16 network.
    """
    readings: Readings = {}
    inside: list[Any] = []  # for each call under way, what its sublayers took

    def metered(name: str, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = read()
            inside.append(start - start)
            result = function(*arguments, **options)
            taken = read() - start
            readings[name, phase] = taken - inside.pop()
            if inside:
                inside[-1] = inside[-1] + taken
            return result

        return call

    with threads.single_threaded_blas(), _replaced(list(named_layers(network)), metered):  # BLAS as in the loop
        network.step_gradients(x, t, *([] if scaler is None else [scaler.scale]))
        if scaler is None:
            metered(OPTIMIZER, "update", optimizer.update)(network.params, network.grads)
        else:
            metered(OPTIMIZER, "update", scaler.update)(optimizer, network.params, network.grads)
    return readings


@contextmanager
def _replaced(layers: Sequence[tuple[str, Layer]], metered: Callable[..., Any]) -> Iterator[None]:
    """Puts metered methods in front of those of the layers' classes."""
    methods = {"forward": "forward", "forward_relu": "forward", "backward": "backward"}
    try:
        for name, layer in layers:
            for method, phase in methods.items():
                function = getattr(layer, method, None)
                if function is not None:
                    setattr(layer, method, metered(name, phase, function))
        yield
    finally:
        for _, layer in layers:
            for method in methods:
                vars(layer).pop(method, None)


_WARM_UP = 3


def seconds_of_a_step(
    network: Network, optimizer: Optimizer, x: Any, t: Any, steps: int, scaler: LossScaler | None = None
) -> Readings:
    """Median seconds of each layer and phase over ``steps`` steps, after some that are not looked at.

    Every sample is one whole step, so one that was disturbed does not show. On a GPU each layer is waited for, which
    the training loop does not do: there the sum is more than a step takes.
    """

    def clock() -> float:
        synchronize()
        return time.perf_counter()

    samples = [phases_of_a_step(network, optimizer, x, t, clock, scaler) for _ in range(_WARM_UP + steps)][_WARM_UP:]
    return {place: statistics.median(sample[place] for sample in samples) for place in samples[0]}
