"""Run one training step on a device, and record the inputs and outputs of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy

from backend import asarray, asnumpy, random, use
from backend.types import Array
from layers import Sequential
from layers.base import walk
from training.check.bounds import Arrays
from training.data import Loader
from training.models import Network
from training.optim import optimizers

LOSS = "loss"
"""The name of the loss, which is not one of the network's layers."""


@dataclass
class LayerRecord:
    """Host copies of a layer's inputs and outputs.

    Attributes:
        inputs: of its forward: x, and for the loss the targets, or what is added to a batch normalization; empty for a
            Relu that was fused into the layer before it.
        y: its output; if ``rectified``, that of the fused Relu.
        dout: the gradient that its backward got; a number for the loss.
        dx: the gradient that backward returned; None for a first layer.
        random_state: of the current generator before forward.
    """

    inputs: tuple[Any, ...] = ()
    y: Any = None
    rectified: bool = False
    dout: Any = None
    dx: Any = None
    random_state: Any = None


@dataclass(frozen=True)
class Step:
    """The results of a step, on the host.

    Attributes:
        layers: by their places in the network; the loss is among them.
        grads, params, state: the network's, by name; parameters and state after the step.
        slots: the optimizer's state after the step, by slot and parameter.
        random_state: of the current generator after the step.
    """

    layers: dict[str, LayerRecord]
    grads: Arrays
    params: Arrays
    state: Arrays
    slots: dict[str, Arrays]
    random_state: dict[str, int]

    @property
    def loss(self) -> float:
        """The mean over the batch."""
        return float(self.layers[LOSS].y)


class Replica:
    """A network with its optimizer on a device.

    Args:
        place: the device, as ``backend.use`` takes it.
        make: returns the network, on the active device.
        optimizer: of ``training.optim.NAMES``.
    """

    def __init__(self, place: str, make: Callable[[], Network], optimizer: str) -> None:
        self.place = place
        with use(place):
            self.network = make()
        self.optimizer = optimizers.by_name(optimizer)

    def take_over(self, other: Replica) -> None:
        """Copy the parameters, the state and the optimizer's state of ``other``, which has made the same number of
        steps."""
        pairs: list[tuple[Any, Any]] = [(self.network.params, other.network.params)]
        pairs += [(self.network.state, other.network.state)]
        pairs += [(self.optimizer.state[slot], arrays) for slot, arrays in other.optimizer.state.items()]
        with use(self.place):
            for own, others in pairs:
                for name, array in others.items():
                    own[name][...] = asarray(array)

    def step(self, loader: Loader, batch: tuple[int, int], random_state: dict[str, int]) -> Step:
        """Make a training step with a batch (epoch, index) of the loader."""
        network = self.network
        with use(self.place):
            random.current().state = random_state
            with _recorded(network) as records:
                network.step_gradients(*loader.batch(*batch))
            self.optimizer.update(network.params, network.grads)
            slots = {slot: _on_host(arrays) for slot, arrays in self.optimizer.state.items()}
            grads, params, state = map(_on_host, (network.grads, network.params, network.state))
            return Step(records, grads, params, state, slots, random.current().state)


_METHODS = ("forward", "forward_relu", "forward_added_relu", "forward_measured", "backward", "backward_relu")


@contextmanager
def _recorded(network: Network) -> Iterator[dict[str, LayerRecord]]:
    """Record the layers of a network while the ``with`` lasts.

    The step is the one that training makes: a fused Relu stays fused.
    """
    layers: dict[str, Any] = {place: layer for place, layer in walk(network.layers) if place}
    layers[LOSS] = network.last_layer
    records = {name: LayerRecord() for name in layers}
    names = {id(layer): name for name, layer in layers.items()}
    chains = [layer for _, layer in walk(network.layers) if isinstance(layer, Sequential)]
    behind = {
        names[id(step.layer)]: names[id(step.relu)] for chain in chains for step in chain.backward_steps if step.relu
    }
    try:
        for name, layer in layers.items():
            relu = records[behind.get(name, name)]
            for method in _METHODS:
                original = getattr(layer, method, None)
                if original is not None:
                    setattr(layer, method, _recording(records[name], method, original, relu))
        yield records
    finally:
        for layer in layers.values():
            for method in _METHODS:
                vars(layer).pop(method, None)


def _recording(record: LayerRecord, method: str, original: Callable[..., Any], relu: LayerRecord) -> Callable[..., Any]:
    """Return a method that records; ``relu`` is the record of the Relu whose gradient a ``backward_relu`` takes."""

    def forward(*arguments: Any) -> Any:
        record.inputs = tuple(_copy(argument) for argument in arguments)
        record.random_state = random.current().state
        result = original(*arguments)
        record.rectified = method in ("forward_relu", "forward_added_relu")
        record.y = _copy(result if method == "forward" else result[0])
        return result

    def backward(dout: Array) -> Any:
        record.dout = _copy(dout)
        result = original(dout)
        record.dx = _copy(result)
        return result

    def backward_relu(dout: Array, positive: Any) -> Any:
        relu.dout = _copy(dout)
        result = original(dout, positive)
        record.dout = relu.dx = numpy.where(record.y > 0, relu.dout, relu.dout.dtype.type(0))
        record.dx = _copy(result)
        return result

    if method == "backward_relu":
        return backward_relu
    return backward if method == "backward" else forward


def _on_host(arrays: Mapping[str, Array]) -> Arrays:
    return {name: _copy(array) for name, array in arrays.items()}


def _copy(value: Any) -> Any:
    """Return a host copy of an array, or the value itself if it is not an array."""
    return asnumpy(value).copy() if hasattr(value, "dtype") else value
