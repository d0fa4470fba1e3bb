"""Train on a device and on the CPU in lockstep, and check every step of the device.

Two trainings that run freely drift apart even if both are correct: their rounding differs, and sometimes flips a ReLU
or a maximum. Therefore the device gets the CPU's parameters, state, optimizer state and random state before every step,
and makes that one step. The results of each layer are then compared with bounds, computed from the inputs that the
device's *own* layers got: where rounding flipped a ReLU, the next layer is checked on that input. Each bound is that of
one operation against float64 (``training.check.bounds``), and does not grow along the network. Whether each layer got
the output of the layer before it is compared bit for bit. If all links hold, the whole step is correct: batch, outputs,
loss, gradients and update.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy

from backend import random, use
from backend.types import Array
from training.check.bounds import Bound
from training.check.devices import in_one_line, severity
from training.check.layer_bounds import layer_bounds, loss_bounds
from training.check.replica import LOSS, Replica, Step
from training.data import Loader, load

TRAININGS = (("DeepConvNet", "adam"), ("ConvNet", "momentum"))
"""The models and optimizers that ``xpnet check`` trains: one with pooling and dropout, one with batch normalization."""


class Link(NamedTuple):
    """One array of a step, compared with its bound.

    Attributes:
        layer: its name in the network; or "batch", "loss", "optimizer" or "random numbers".
        array: "x" (the layer's input), "y", "dout", "dx", "dW", …
        error, tolerance: in ulps of the element's magnitude.
    """

    layer: str
    array: str
    error: float
    tolerance: float


@dataclass(frozen=True)
class Divergence:
    """The first wrong result of a device: the fields of ``Link``, and the step, counted from 1.

    If the device raised an error, ``layer`` is empty and ``array`` has the message.
    """

    step: int
    layer: str
    array: str
    error: float
    tolerance: float


@dataclass(frozen=True)
class LockstepResult:
    """The result of a training in lockstep.

    Attributes:
        model, optimizer: the names of what was trained.
        steps: the number of steps made.
        loss_difference: the largest difference of the losses of CPU and device, divided by the CPU's.
        share: the largest error divided by its tolerance.
        divergence: the first error that is too large, or None.
    """

    model: str
    optimizer: str
    steps: int
    loss_difference: float
    share: float
    divergence: Divergence | None = None

    @property
    def passed(self) -> bool:
        """True if every step was right."""
        return self.divergence is None


def train_in_lockstep(
    device: str,
    steps: int = 50,
    model: str = "DeepConvNet",
    optimizer: str = "adam",
    seed: int = 0,
    batch_size: int = 8,
) -> LockstepResult:
    """Train on the CPU and make each step on ``device``, too; stop at the first step that is wrong there.

    Args:
        device: as ``backend.use`` takes it.
        steps: at least 1.
        model: of ``training.models.zoo.MODELS``; its layers need to have bounds.
        optimizer: of ``training.optim.NAMES``.
        seed: of first weights, dropout, and the order of the data (mnist10k).
        batch_size: samples in a step.
    """
    data = load()
    loader = Loader(data.train_images, data.train_labels, batch_size, seed=seed, drop_last=True)
    host, other = (Replica(place, model, data, optimizer, seed) for place in ("cpu", device))
    random_state, difference, share = random.Generator(seed).state, 0.0, 0.0
    for step in range(1, steps + 1):
        batch = divmod(step - 1, len(loader))
        try:
            other.take_over(host)
            made = other.step(loader, batch, random_state)
        except Exception as error:  # of the device, whatever it is
            divergence = Divergence(step, "", in_one_line(error), math.inf, 0.0)
            return LockstepResult(model, optimizer, step, difference, math.inf, divergence)
        with use("cpu"):
            links = list(_links(host, made, *loader.batch(*batch)))
        expected = host.step(loader, batch, random_state)
        links.append(Link("random numbers", "state", _unless(made.random_state == expected.random_state), 0.0))
        random_state = expected.random_state
        difference = max(difference, abs(made.loss - expected.loss) / max(abs(expected.loss), 1e-3))
        share = max(share, *(severity(link.error, link.tolerance)[1] for link in links))
        wrong = next((link for link in links if not link.error <= link.tolerance), None)
        if wrong is not None:
            return LockstepResult(model, optimizer, step, difference, share, Divergence(step, *wrong))
    return LockstepResult(model, optimizer, steps, difference, share)


def _links(host: Replica, step: Step, x: numpy.ndarray, t: numpy.ndarray) -> Iterator[Link]:
    """Compare the arrays of a step with their bounds, in the order in which they were computed.

    Args:
        host: the replica on the CPU, before the step.
        step: of the device.
        x, t: the batch.
    """
    network, loss = host.network, step.layers[LOSS]
    scores, labels = loss.inputs
    bounds = {LOSS: loss_bounds(scores, labels)}
    flow, source = x, "batch"
    for name, layer in network.layers.layers.items():
        record = step.layers[name]
        if record.inputs:
            yield Link(source if flow is x else name, "x", _same(record.inputs[0], flow), 0.0)
            random.current().state = record.random_state
        else:
            record.inputs, record.y = (flow,), flow  # a Relu fused into the layer before: a second one changes nothing
        own = bounds[name] = layer_bounds(layer, record.inputs[0], record.dout)
        if record.rectified:
            own["y"] = replace(own["y"], expected=numpy.maximum(own["y"].expected, 0))
        yield _link(name, "y", own["y"], record.y)
        flow = record.y
    yield Link(LOSS, "x", _same(scores, flow), 0.0)
    yield Link("batch", "t", _same(labels, t), 0.0)
    yield _link(LOSS, "loss", bounds[LOSS]["loss"], loss.y)
    yield Link(LOSS, "dout", _unless(loss.dout == 1), 0.0)
    yield _link(LOSS, "dx", bounds[LOSS]["dx"], loss.dx)
    flow = loss.dx
    names = {id(array): name for name, array in (*network.params.items(), *network.state.items())}
    for name, layer in reversed(network.layers.sublayers()):
        record, own = step.layers[name], bounds[name]
        yield Link(name, "dout", _same(record.dout, flow), 0.0)
        if "dx" in own:
            yield _link(name, "dx", own["dx"], record.dx)
        for key, array in layer.params.items():
            yield _link(name, f"d{key}", own[f"d{key}"], step.grads[names[id(array)]])
        for key, array in layer.state.items():
            yield _link(name, key, own[key], step.state[names[id(array)]])
        flow = record.dx
    yield from _update_links(host, step)


def _update_links(host: Replica, step: Step) -> Iterator[Link]:
    """Compare parameters and optimizer state, bit for bit, with the CPU's update by the device's gradients."""
    optimizer = copy.deepcopy(host.optimizer)
    params = {name: array.copy() for name, array in host.network.params.items()}
    optimizer.update(params, step.grads)
    for slot, arrays in {"": params, **optimizer.state}.items():
        made = step.slots[slot] if slot else step.params
        for name, array in arrays.items():
            yield _link("optimizer", f"{slot} of {name}" if slot else name, Bound(array, array.dtype), made[name])


def _link(layer: str, array: str, bound: Bound, actual: Any) -> Link:
    return Link(layer, array, bound.error(numpy.asarray(actual)), bound.ulps)


def _same(actual: Array, expected: Array) -> float:
    return _unless(numpy.array_equal(actual, expected, equal_nan=True) and actual.dtype == expected.dtype)


def _unless(right: bool) -> float:
    return 0.0 if right else math.inf
