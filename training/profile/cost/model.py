"""The cost of a whole training step: layer by layer, the loss, and the optimizer's update."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy

from kernels.core.dtypes import acc_dtype
from layers import Layer, Residual, Sequential
from layers.base import Shape, joined
from training.models.network import Network
from training.optim.optimizer import Optimizer
from training.profile.cost.work import Array, Cost, Work, cost_of, output_of
from training.profile.layer_phases import LOSS, OPTIMIZER


class Row(NamedTuple):
    """A layer of a network, or what comes behind the layers.

    Attributes:
        name: its place in the model, such as ``"Convolution1"`` or ``"Residual1.body.Convolution1"``.
        kind: its class.
        shape: of its output, without the batch axis.
        parameters: how many numbers it learns.
        work: by phase, as far as there is work. A Relu that is done along with the layer before it has no forward.
        kept: bytes of activations held between its forward and its backward.
        is_known: False where nobody has declared its cost: then ``work`` is empty.
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    work: dict[str, Work]
    kept: int = 0
    is_known: bool = True


@dataclass(frozen=True)
class StepCost:
    """What a training step costs.

    Attributes:
        samples: the batch size.
        dtype: of parameters and activations.
        rows: layers in the order of the forward, the loss, the optimizer.
        state_bytes: the optimizer's state, the master parameters of float16 among them.
    """

    samples: int
    dtype: numpy.dtype
    rows: list[Row]
    state_bytes: int

    @property
    def parameters(self) -> int:
        """Numbers that are learned."""
        return sum(row.parameters for row in self.rows)

    @property
    def unknown(self) -> list[str]:
        """The layers whose cost nobody declared; the totals are without them."""
        return [row.name for row in self.rows if not row.is_known]

    @property
    def total(self) -> Work:
        """All work; scratch is the most of any."""
        total = Work()
        for row in self.rows:
            for work in row.work.values():
                total = total.then(work)
        return total

    @property
    def kept(self) -> int:
        """Bytes of activations held where forward ends; the batch itself where a layer holds it."""
        return sum(row.kept for row in self.rows)

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of what a step needs at least: what is on its way from one layer to the next comes on top, and what an
        allocator rounds up; and whatever layers take that are not known."""
        parameters = self.parameters * self.dtype.itemsize
        return {
            "parameters": parameters,
            "gradients": parameters,
            "optimizer state": self.state_bytes,
            "activations for backward": self.kept,
            "workspace": self.total.workspace,
        }


def cost_of_step(network: Network, samples: int, optimizer: Optimizer) -> StepCost:
    """What a training step with a batch of ``samples`` costs, without doing it.

    float16 networks are taken to be trained under a loss scale.
    """
    dtype = network.params.flat.dtype
    x = Array(samples, network.input_dim, numpy.dtype(dtype), channels_last=False)
    rows, scores, held = _walk("", network.layers, x, is_held=False)
    rows.append(_loss(network, scores, held))
    update, state = _update(network, optimizer)
    rows.append(update)
    return StepCost(samples, x.dtype, rows, state)


def _walk(prefix: str, layer: Layer, x: Array, is_held: bool) -> tuple[list[Row], Array, bool]:
    """Rows of a layer and all in it, its output, and whether that is held; ``is_held`` says so of its input."""
    if type(layer) is Sequential:
        rows: list[Row] = []
        cost_before = None
        fused = [step.relu for step in layer.steps]
        for name, each in layer.sublayers():
            inside, y, is_held = _walk(joined(prefix, name), each, x, is_held)
            if each in fused:
                rows[-1], inside[0] = _joint(rows[-1], inside[0], cost_before)
            rows += inside
            cost_before, x = cost_of(each, x), y
        return rows, x, is_held
    if type(layer) is Residual:
        rows, y, _ = _walk(joined(prefix, "body"), layer.body, x, is_held)
        if layer.shortcut is not None:
            held_by_body = is_held or _holds_input(layer.body, x)
            rows += _walk(joined(prefix, "shortcut"), layer.shortcut, x, held_by_body)[0]
        return [*rows, _row(prefix, layer, x, y, is_held=True)], y, False
    cost = cost_of(layer, x)
    return [_row(prefix, layer, x, output_of(layer, x), is_held)], output_of(layer, x), bool(cost and cost.keeps_output)


def _row(name: str, layer: Layer, x: Array, y: Array, is_held: bool) -> Row:
    parameters = 0 if type(layer) is Residual else sum(array.size for array in layer.params.values())
    cost = cost_of(layer, x)
    if cost is None:
        return Row(name, type(layer).__name__, y.shape, parameters, {}, is_known=False)
    kept = cost.kept + (cost.keeps_input and not is_held) * x.nbytes + cost.keeps_output * y.nbytes
    work = {"forward": cost.forward, "backward": cost.backward}
    return Row(name, type(layer).__name__, y.shape, parameters, work, kept)


def _joint(row: Row, relu: Row, cost: Cost | None) -> tuple[Row, Row]:
    """A layer and the Relu behind it that is done along with it, in place of its output."""
    alone = relu.work["forward"]
    if cost is not None:
        done = Work(0, alone.other_flops, relu.kept, cost.relu_launches)
        row = row._replace(work={**row.work, "forward": cost.forward.then(done)})
    return row, relu._replace(work={"backward": relu.work["backward"]})


def _holds_input(layer: Layer, x: Array) -> bool:
    """Whether a layer, or the first of those in it, holds its input for backward."""
    inside = layer.sublayers()
    if inside:
        return any(_holds_input(each, x) for _, each in (inside[:1] if type(layer) is Sequential else inside))
    cost = cost_of(layer, x)
    return cost is not None and cost.keeps_input


def _loss(network: Network, scores: Array, is_held: bool) -> Row:
    row = _row(LOSS, network.last_layer, scores, scores, is_held)
    if scores.dtype != scores.sums:  # the scale lies on the device, where a plain number is brought by a kernel
        backward = row.work["backward"]
        row.work["backward"] = backward._replace(launches=backward.launches - 1)
    return row._replace(shape=())


def _update(network: Network, optimizer: Optimizer) -> tuple[Row, int]:
    """The update of the flat buffer, as ``kernels.updates`` does it, and the bytes of the optimizer's state."""
    flat = network.params.flat
    sums = acc_dtype(flat.dtype)
    scaled = flat.dtype != sums
    state = (len(optimizer.slots) + scaled) * flat.size * sums.itemsize
    decays = bool(optimizer.coupled_decay and optimizer.weight_decay)  # a product and a sum before the formula
    operations = len(re.findall(r"[-+*/]=?|sqrt", optimizer.device_formula)) + 2 * decays
    nbytes = 3 * flat.nbytes + 2 * state
    work = Work(0, operations * flat.size, nbytes, 1)
    if scaled:  # overflow is looked for before, and the scale moved after
        work = work.then(Work(0, flat.size, flat.nbytes, 2))
    return Row(OPTIMIZER, type(optimizer).__name__, (), 0, {"update": work}), state
