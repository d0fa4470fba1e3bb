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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from backend import asnumpy, random, use
from backend.types import Array
from training.check.bounds import Bound
from training.check.devices import in_one_line, severity
from training.check.layer_bounds import has_bounds, layer_bounds, loss_bounds
from training.check.replica import LOSS, Replica, Step
from training.data import Loader, load
from training.models import Network, build_for
from training.models.loading import load_network
from training.profile.meter import example_batch

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

    def make() -> Network:
        random.seed(seed)
        return build_for(model, data.input_dim, len(data.classes))

    return _train(device, steps, model, make, loader, optimizer, seed)


def train_file_in_lockstep(
    device: str, file: Path, steps: int = 50, seed: int = 0, allow_import: bool = False, batch_size: int = 8
) -> LockstepResult:
    """Train the network of a file, in float32 by Adam on random samples, as ``train_in_lockstep`` does.

    Args:
        device, steps, batch_size: as there.
        file: as ``training.models.loading.load_network`` takes it, and ``allow_import``.
        seed: of the samples and dropout.

    Raises:
        ValueError: the file's network cannot be made, a layer has no bounds, or the loss is not plain softmax.
        OSError: the file cannot be read.
    """

    def make() -> Network:
        return load_network(file, allow_import).astype("float32")

    network = check_network(file, allow_import)
    with use("cpu"):
        random.seed(seed)
        x, t = map(asnumpy, example_batch(network, 8 * batch_size))
        loader = Loader(x, t, batch_size, seed=seed)
    return _train(device, steps, type(network).__name__, make, loader, "adam", seed)


def check_network(file: Path, allow_import: bool = False) -> Network:
    """Return the network of a file on the CPU, in float32; raise unless ``train_file_in_lockstep`` can check it.

    Raises:
        ValueError: it cannot be made, a layer has no bounds, or the loss is not plain softmax.
        OSError: the file cannot be read.
    """
    with use("cpu"):
        network = load_network(file, allow_import).astype("float32")
    unknown = sorted({type(layer).__name__ for layer in network.layers.layers.values() if not has_bounds(layer)})
    if unknown or repr(network.last_layer) != "SoftmaxWithLoss()":
        what = f"layers {', '.join(unknown)}" if unknown else f"loss {network.last_layer!r}"
        raise ValueError(f"{file} cannot be checked: no bounds are known for its {what}")
    return network


def _train(
    device: str, steps: int, model: str, make: Callable[[], Network], loader: Loader, optimizer: str, seed: int
) -> LockstepResult:
    host, other = (Replica(place, make, optimizer) for place in ("cpu", device))
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
