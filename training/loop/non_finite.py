"""Find where the first number that is not finite came from, and say what may help.

The search follows the order of a step: input, labels, parameters, each layer's output, the loss, and on request each
layer's gradients. It reads arrays, and so waits for the device: call it once a loss is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy

from backend import array_module, asnumpy
from backend.types import Array
from kernels import labels, targets
from layers import Layer, Sequential
from layers.base import walk
from training.data import Loader
from training.models.network import Network

Index = tuple[int, ...]
SampleName = Callable[[int], str]  # the name of a batch's i-th sample

SMALLER_STEPS = "a smaller learning rate or clipped gradients may help"
WIDER = "a smaller learning rate, other first weights or float32 may help"
_FIRST_STEP = "no step was taken yet: smaller first weights, or scaled data, may help"
_BETTER_DATA = "mend the sample or leave it out"
_OTHER_PARAMETERS = "no step has made it so: look at the file or the initializer that it comes from"
_OTHER_MODEL = "the model, or the scale of the data, is not what was trained"


_LARGE = 1e6
"""Data of a usual scale is far smaller; in float16, whose largest number is 65504, so is what is larger than"""

_LARGE_FLOAT16 = 1e3


class NonFiniteError(ArithmeticError):
    """A loss or a score is infinite or NaN; the message names the sample, parameter or layer where that began."""


@dataclass(frozen=True)
class Origin:
    """Place of the first number that is not finite, in words, and what may help; or that no such place was found."""

    place: str
    remedy: str = SMALLER_STEPS
    is_found: bool = True

    def __str__(self) -> str:
        return f"the first number that is not finite is in {self.place}; {self.remedy}"


def find_non_finite(
    network: Network, x: Array, t: Array, *, sample: SampleName = "sample {} of the batch".format, training: bool = True
) -> Origin | None:
    """Find the first number that is not finite as a batch goes through a network, up to the loss.

    Random state, parameters and running statistics stay as they are.

    Args:
        network, x, t: as for ``Network.loss``; a label that is out of range counts as well.
        sample: the name of the batch's i-th sample.
        training: whether layers behave as in training.
    """
    return (
        _in_input(network, x, sample)
        or _in_targets(t, network, sample)
        or in_parameters(network)
        or _in_forward(network, x, t, sample, training)
    )


def in_parameters(network: Network, since: str | None = None, *, learned_only: bool = False) -> Origin | None:
    """Find a parameter or running statistic that is not finite.

    Args:
        since: the step that may have caused it, in words: then the parameter nearest to the loss is named, because
            gradients flow from there to the input. With None the first is named.
        learned_only: skip running statistics: a forward in training writes them and does not read them.
    """
    arrays = network.named_arrays()
    found = [
        (owner, name, array, index)
        for owner, name, array in arrays
        if (name in network.params or not learned_only) and (index := _first(array)) is not None
    ]
    if not found:
        return None
    owner, name, array, index = found[-1 if since else 0]
    place = f"parameter {name} of layer {owner}: {_value(array, index)}"
    return Origin(f"{place}, since {since}") if since else Origin(place, _OTHER_PARAMETERS)


def in_step(network: Network, loader: Loader, epoch: int, index: int, step: int) -> Origin:
    """Find why the loss of a training step is not finite.

    Args:
        loader: of the training data; ``index`` is the batch's in the ``epoch``, from 0.
        step: number of steps taken before; the parameters were finite before the first.
    """
    x, t = loader.batch(epoch, index)
    sample = _names("training data", loader.indices(epoch, index))
    since, remedy = since_step(step), SMALLER_STEPS
    if array_module(network.params.flat) is not numpy:
        # The loss is read a few steps later: an error in this step may have reached all parameters.
        since = f"{since_step(max(step, 1))} or of one after it, and perhaps from another layer"
        remedy = f"{SMALLER_STEPS}; on the CPU (XPNET_DEVICE=cpu) the very step is caught"
    spoilt = in_parameters(network, since, learned_only=True)
    found = (
        _in_input(network, x, sample, loader, loader.indices(epoch, index))
        or (spoilt and replace(spoilt, remedy=remedy if since else spoilt.remedy))
        or _in_forward(network, x, t, sample, training=True)
        or Origin(
            "what later steps have changed: with the parameters as they are now the loss is finite", is_found=False
        )
    )
    return replace(found, remedy=_FIRST_STEP) if not step and found.remedy == SMALLER_STEPS else found


def since_step(step: int) -> str | None:
    """Return in words what changed the parameters in step 1, 2, …; None before the first."""
    return f"the backward or the update of step {step}" if step else None


def in_evaluation(network: Network, loader: Loader, data: str, since: str | None = None) -> Origin:
    """Find why the loss over all samples of a loader is not finite.

    Args:
        data: name of the loader's samples, such as "test data".
        since: as for ``in_parameters``.
    """
    found = in_parameters(network, since)
    for index in range(len(loader)):
        if found is not None:
            break
        (x, t), indices = loader.batch(0, index), loader.indices(0, index)
        sample = _names(data, indices)
        found = _in_input(network, x, sample, loader, indices) or _in_forward(network, x, t, sample, training=False)
    found = found or Origin("the sum of the losses, each of which is finite")
    return replace(found, remedy=_OTHER_MODEL) if since is None and found.remedy == SMALLER_STEPS else found


def last_gradient(network: Network) -> Array | None:
    """Return the smallest gradient of the layer that a backward reaches last; None without parameters.

    NaN and infinity mostly spread to it from later layers, so that checking these few numbers in each step is enough.
    """
    arrays = [each for each in network.named_arrays() if each[1] not in network.params.frozen]
    own = [network.grads[name] for owner, name, _ in arrays if name in network.grads and owner == arrays[0][0]]
    return min(own, key=lambda array: array.size, default=None)


def in_backward(network: Network, loader: Loader, epoch: int, index: int, scale: float | Array) -> Origin:
    """Find the layer whose backward makes the first gradient that is not finite, for a batch with a finite loss.

    Dropout draws other masks than in the step. The network's gradients are overwritten.

    Args:
        loader, epoch, index: as for ``in_step``.
        scale: of the loss.
    """
    found: list[Origin] = []
    remedy = WIDER if network.params.flat.dtype == numpy.float16 else SMALLER_STEPS

    def look(place: str, layer: Layer, dx: Array | None) -> None:
        gradients = {f"d{name}": array for name, array in layer.grads.items()} | ({} if dx is None else {"dx": dx})
        for name, array in gradients.items():
            if not found and (at := _first(array)) is not None:
                found.append(Origin(f"{name} of layer {place}, {_brief(layer)}: {_value(array, at)}", remedy))

    x, t = loader.batch(epoch, index)
    with network.undisturbed(), numpy.errstate(all="ignore"):
        network.last_layer.forward(network.layers.train().forward(x), t)
        dx = network.last_layer.backward(scale)
        if (at := _first(dx)) is not None:
            return Origin(f"the gradient of the {_loss_name(network)}: {_value(dx, at)}", remedy)
        with _watched(network, "backward", look):
            network.layers.backward(dx)
    return found[0] if found else Origin("no gradient of the batch, computed again", remedy, is_found=False)


def _in_input(
    network: Network, x: Array, sample: SampleName, loader: Loader | None = None, indices: Any = ()
) -> Origin | None:
    if network.index_count is not None:
        return _in_indices(asnumpy(x), network.index_count, sample)
    at = _first(x)
    if at is None:
        return None
    place = f"the input: {sample(at[0])} has {_value(x, at, at[1:])}"
    if loader is not None:
        given = loader.sample(indices[at[0]])[at[1:]]
        if numpy.isfinite(given):
            return Origin(f"{place}, {given:g} in the data set", f"{x.dtype} holds no such number: scale the data")
    return Origin(place, _BETTER_DATA)


def _in_indices(x: numpy.ndarray, count: int, sample: SampleName) -> Origin | None:
    bad = labels.find_out_of_range(numpy.ascontiguousarray(x).reshape(-1), count)
    if bad is None:
        return None
    first, *within = map(int, numpy.unravel_index(bad, x.shape))
    place = f" at {tuple(within)}" if within else ""
    given = f"index {x.reshape(-1)[bad]}{place}, expected 0 to {count - 1}"
    return Origin(f"the input: {sample(first)} has {given}", _BETTER_DATA)


def _in_targets(t: Array, network: Network, sample: SampleName) -> Origin | None:
    t, loss, classes = asnumpy(t), network.last_layer, network.classes
    if t.dtype.kind == "f" or t.ndim > len(network.output_dim):
        at = targets.find_wrong(t, *((0, 1) if loss.target_kind == "labels" else ()))
        return None if at is None else Origin(f"the labels: {sample(at[0])} has {_value(t, at, at[1:])}", _BETTER_DATA)
    if loss.target_kind != "classes":
        return None
    counted = loss.counted(t)
    bad = labels.find_out_of_range((t if counted is None else t * counted).reshape(-1), classes)
    if bad is None:
        return None
    first, *within = map(int, numpy.unravel_index(bad, t.shape))
    given = f"{t.reshape(-1)[bad]}{f' at {tuple(within)}' if within else ''}"
    return Origin(f"the labels: {sample(first)} has {given}, expected 0 to {classes - 1}", _BETTER_DATA)


def _in_forward(network: Network, x: Array, t: Array, sample: SampleName, training: bool) -> Origin | None:
    found: list[Origin] = []

    def look(place: str, layer: Layer, y: Array) -> None:
        if not found and (at := _first(y)) is not None:
            where = _value(y, at, at[1:])
            output = f"the output of layer {place}, {_brief(layer)}, for {sample(at[0])}: {where}"
            found.append(Origin(output, _scale_remedy(x, sample)))

    with network.undisturbed(), numpy.errstate(all="ignore"):
        with _watched(network, "forward", look):
            scores = network.layers.train(training).forward(x)
        if found:
            return found[0]
        loss = float(asnumpy(network.last_layer.forward(scores, t)))
    if math.isfinite(loss):
        return None
    scope = f"from {float(scores.min()):g} to {float(scores.max()):g}"
    return Origin(f"the {_loss_name(network)} itself: {loss} for scores {scope}", _scale_remedy(x, sample))


def _loss_name(network: Network) -> str:
    name = type(network.last_layer).__name__
    return "softmax loss" if name == "SoftmaxWithLoss" else f"loss {name}"


def _scale_remedy(x: Array, sample: SampleName) -> str:
    """Return what may help if a forward overflows: to scale the data if the input is large, else smaller steps."""
    if x.dtype.kind != "f":  # indices
        return SMALLER_STEPS
    sizes = abs(x)
    at = tuple(int(i) for i in numpy.unravel_index(int(sizes.argmax()), x.shape))
    if float(sizes[at]) <= (_LARGE_FLOAT16 if x.dtype == numpy.float16 else _LARGE):
        return SMALLER_STEPS
    return f"the input is large, {_value(x, at, at[1:])} of {sample(at[0])}: scale the data"


@contextmanager
def _watched(network: Network, method: str, look: Callable[[str, Layer, Any], None]) -> Iterator[None]:
    """Call ``look`` with what a method of every layer returns, a sublayer before the layer that contains it."""
    layers = list(walk(network.layers))
    before = [dict(vars(layer)) for _, layer in layers]

    def watching(place: str, layer: Layer) -> Callable[..., Any]:
        function = getattr(layer, method)

        def call(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            look(place, layer, result)
            return result

        return call

    names = [method, "steps", "backward_steps"]
    try:
        for place, layer in layers:
            if isinstance(layer, Sequential):  # a Relu is checked separately
                layer.steps = layer.plan(fuse=method != "forward")
                layer.backward_steps = layer.plan("backward", fuse=False)[::-1]
            vars(layer)[method] = watching(place, layer)
        yield
    finally:
        for (_, layer), kept in zip(layers, before, strict=True):
            for name in names:
                vars(layer).pop(name, None)
            vars(layer).update({name: kept[name] for name in names if name in kept})


def _names(data: str, indices: numpy.ndarray) -> SampleName:
    """Return a function that names a batch's samples by their indices in the data set."""
    return lambda i: f"sample {indices[i]} of the {data}"


def _first(array: Array) -> Index | None:
    """Return the index of the first number that is not finite, or None."""
    finite = array_module(array).isfinite(array)
    if finite.all():
        return None
    return tuple(int(i) for i in numpy.unravel_index(int(finite.reshape(-1).argmin()), array.shape))


def _value(array: Array, index: Index, shown: Index | None = None) -> str:
    shown = index if shown is None else shown
    return f"{float(array[index]):g}{f' at {shown}' if shown else ''}"


def _brief(layer: Layer) -> str:
    """Return the layer in one line, without its sublayers."""
    return type(layer).__name__ if layer.sublayers() else repr(layer)
