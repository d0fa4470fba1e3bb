"""Compare the arrays of one training step with their bounds, layer by layer, in the order in which they were made."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy

from backend import random
from backend.types import Array
from layers import Layer, Residual, Sequential
from layers.base import joined
from training.check.bounds import Bound
from training.check.layer_bounds import Bounds, layer_bounds
from training.check.loss_bounds import loss_bounds
from training.check.replica import LOSS, Replica, Step

Flow = Generator["Link", None, numpy.ndarray]
"""Yields links, and returns the array that goes on to the next layer."""


class Link(NamedTuple):
    """One array of a step, compared with its bound.

    Attributes:
        layer: its place in the network; or "batch", "loss", "optimizer" or "random numbers".
        array: "x" (the layer's input), "y", "dout", "dx", "dW", …
        error, tolerance: in ulps of the element's magnitude.
    """

    layer: str
    array: str
    error: float
    tolerance: float


def links(host: Replica, step: Step, x: numpy.ndarray, t: numpy.ndarray) -> Iterator[Link]:
    """Compare the arrays of a step with their bounds.

    Args:
        host: the replica on the CPU, before the step.
        step: of the device.
        x, t: the batch.
    """
    network, loss = host.network, step.layers[LOSS]
    scores, targets = loss.inputs
    walk = _Walk(host, step, x)
    flow = yield from walk.forward("", network.layers, x)
    yield Link(LOSS, "x", unless(same(scores, flow)), 0.0)
    yield Link("batch", "t", unless(same(targets, t)), 0.0)
    bounds = loss_bounds(network.last_layer, scores, targets)
    yield _compared(LOSS, "loss", bounds["loss"], loss.y)
    yield Link(LOSS, "dout", unless(loss.dout == 1), 0.0)
    yield _compared(LOSS, "dx", bounds["dx"], loss.dx)
    yield from walk.backward("", network.layers, loss.dx)
    yield from _of_update(host, step)


def unchecked(layer: Layer, place: str = "") -> str | None:
    """Return the place of a layer that combines others by code that is not known here; None if there is none."""
    if layer.sublayers() and not (_is(layer, Sequential) or _is(layer, Residual)):
        return place or type(layer).__name__
    found = (unchecked(sublayer, joined(place, name)) for name, sublayer in layer.sublayers())
    return next((each for each in found if each is not None), None)


class _Walk:
    """Goes through the layers of a network, whatever is made of which."""

    def __init__(self, host: Replica, step: Step, x: numpy.ndarray) -> None:
        self._step, self._batch = step, x
        self._bounds: dict[str, Bounds] = {}
        arrays = (*host.network.params.items(), *host.network.state.items())
        self._names = {id(array): name for name, array in arrays}

    def forward(self, place: str, layer: Layer, flow: numpy.ndarray) -> Flow:
        record = self._step.layers.get(place)
        if record is not None and record.inputs:
            yield Link("batch" if flow is self._batch else place, "x", unless(same(record.inputs[0], flow)), 0.0)
        if isinstance(layer, Residual):
            return (yield from self._residual(place, layer, flow))
        if layer.sublayers():
            for name, sublayer in layer.sublayers():
                flow = yield from self.forward(joined(place, name), sublayer, flow)
            return flow
        assert record is not None
        if record.inputs:
            random.current().state = record.random_state
        else:
            record.inputs, record.y = (flow,), flow  # a Relu fused into the layer before: a second one changes nothing
        own = self._bounds[place] = layer_bounds(layer, record.inputs[0], record.dout)
        bound = own["y"]
        if len(record.inputs) == 2:  # a sum that is made along with the layer
            size = numpy.abs(bound.expected) if bound.magnitude is None else bound.magnitude
            bypass = record.inputs[1].astype("float64")
            bound = Bound(bound.expected + bypass, bound.dtype, bound.ulps + 1, size + numpy.abs(bypass))
        if record.rectified:
            bound = replace(bound, expected=numpy.maximum(bound.expected, 0))
        yield _compared(place, "y", bound, record.y)
        return record.y

    def _residual(self, place: str, layer: Residual, flow: numpy.ndarray) -> Flow:
        """Compare both branches; their sum, and its Relu, are rounded once, as IEEE 754 defines."""
        record, bypass = self._step.layers[place], flow
        if layer.shortcut is not None:
            bypass = yield from self.forward(joined(place, "shortcut"), layer.shortcut, flow)
        total = yield from self.forward(joined(place, "body"), layer.body, flow)
        last = [self._step.layers[joined(f"{place}.body", name)] for name, _ in layer.body.sublayers()][-1:]
        if last and len(last[0].inputs) == 2:  # batch normalization has added it
            yield Link(place, "shortcut", unless(same(last[0].inputs[1], bypass)), 0.0)
        else:
            total = total + bypass
            total = numpy.maximum(total, 0) if record.rectified else total
        yield Link(place, "y", unless(same(record.y, total)), 0.0)
        return record.y

    def backward(self, place: str, layer: Layer, flow: numpy.ndarray) -> Flow:
        record = self._step.layers.get(place)
        if record is not None:
            yield Link(place, "dout", unless(same(record.dout, flow)), 0.0)
        if isinstance(layer, Residual):
            bypass = flow
            if layer.shortcut is not None:
                bypass = yield from self.backward(joined(place, "shortcut"), layer.shortcut, flow)
            dx = yield from self.backward(joined(place, "body"), layer.body, flow)
            assert record is not None
            yield Link(place, "dx", unless(same(record.dx, dx + bypass)), 0.0)
            return record.dx
        if layer.sublayers():
            for name, sublayer in reversed(layer.sublayers()):
                flow = yield from self.backward(joined(place, name), sublayer, flow)
            return flow
        assert record is not None
        own = self._bounds[place]
        if "dx" in own:
            yield _compared(place, "dx", own["dx"], record.dx)
        for key, array in layer.params.items():
            yield _compared(place, f"d{key}", own[f"d{key}"], self._step.grads[self._names[id(array)]])
        for key, array in layer.state.items():
            yield _compared(place, key, own[key], self._step.state[self._names[id(array)]])
        return record.dx


def _of_update(host: Replica, step: Step) -> Iterator[Link]:
    """Compare parameters and optimizer state, bit for bit, with the CPU's update by the device's gradients."""
    optimizer = copy.deepcopy(host.optimizer)
    params = {name: array.copy() for name, array in host.network.params.items()}
    optimizer.update(params, step.grads)
    for slot, arrays in {"": params, **optimizer.state}.items():
        made = step.slots[slot] if slot else step.params
        for name, array in arrays.items():
            yield _compared("optimizer", f"{slot} of {name}" if slot else name, Bound(array, array.dtype), made[name])


def _is(layer: Layer, kind: type[Layer]) -> bool:
    """Return True if a layer computes as that kind does."""
    return isinstance(layer, kind) and all(
        getattr(type(layer), method) is getattr(kind, method) for method in ("forward", "forward_relu", "backward")
    )


def _compared(layer: str, array: str, bound: Bound, actual: Any) -> Link:
    return Link(layer, array, bound.error(numpy.asarray(actual)), bound.ulps)


def same(actual: Array, expected: Array) -> bool:
    """Return True if two arrays have the same dtype, shape and numbers."""
    return bool(numpy.array_equal(actual, expected, equal_nan=True) and actual.dtype == expected.dtype)


def unless(right: bool) -> float:
    """Return an error: none if all is right, else infinity."""
    return 0.0 if right else math.inf
