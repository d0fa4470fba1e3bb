"""The cost of a whole training step: layer by layer, the loss, and the optimizer's update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy

from backend import array_module
from kernels.core.dtypes import acc_dtype
from layers import BatchNormalization, Layer, Residual, Sequential, Skip
from layers.base import Shape, joined
from training.models.network import Network
from training.optim.optimizer import Optimizer
from training.optim.optimizers import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop
from training.profile.cost.work import Batch, Cost, Work, cost_of, output_of
from training.profile.steps import LOSS, OPTIMIZER

UPDATE_FLOPS: dict[type[Optimizer], int] = {
    SGD: 2,
    Momentum: 4,
    Nesterov: 7,
    AdaGrad: 7,
    RMSprop: 9,
    Adam: 12,
    AdamW: 14,
}
"""The operations of an optimizer's update for one parameter, its decoupled weight decay included."""

Phase = Literal["forward", "backward"]
_PHASES: tuple[Phase, ...] = ("forward", "backward")
_COMPOSITES = (Residual, Skip)


class CostRow(NamedTuple):
    """The cost of a layer of a network, of the loss, or of the optimizer's update.

    Attributes:
        name: the place in the model, such as ``"Convolution1"`` or ``"Residual1.body.Convolution1"``.
        kind: the class.
        shape: of the output, without the batch axis.
        parameters: how many numbers it learns.
        work: by phase, as far as there is work. A Relu that is fused with the layer before it has no forward.
        kept: bytes of activations kept between forward and backward.
        is_known: False where the cost was not declared: then ``work`` is empty.
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
    """The cost of a training step.

    Attributes:
        samples: the batch size.
        dtype: of parameters and activations.
        rows: layers in the order of the forward pass, the loss, the optimizer.
        state_bytes: the optimizer's state, including the master parameters of a float16 network.
    """

    samples: int
    dtype: numpy.dtype
    rows: list[CostRow]
    state_bytes: int

    @property
    def parameters(self) -> int:
        """Return how many numbers are learned."""
        return sum(row.parameters for row in self.rows)

    @property
    def unknown(self) -> list[str]:
        """Return the rows whose cost was not declared; the totals leave them out."""
        return [row.name for row in self.rows if not row.is_known]

    @property
    def works(self) -> dict[tuple[str, str], Work]:
        """Return the work by layer and phase."""
        return {(row.name, phase): work for row in self.rows for phase, work in row.work.items()}

    @property
    def total(self) -> Work:
        """Return the work of the step."""
        return sum(self.works.values(), Work())

    @property
    def kept(self) -> int:
        """Return the bytes of activations kept at the end of forward, including the batch where a layer keeps it."""
        return sum(row.kept for row in self.rows)

    @property
    def memory(self) -> dict[str, int]:
        """Return the bytes that a step needs at least.

        Scratch memory, what is passed from one layer to the next, an allocator's rounding and layers that are not known
        come on top.
        """
        parameters = self.parameters * self.dtype.itemsize
        return {
            "parameters": parameters,
            "gradients": parameters,
            "optimizer state": self.state_bytes,
            "activations for backward": self.kept,
        }


def cost_of_step(network: Network, samples: int, optimizer: Optimizer) -> StepCost:
    """Return the cost of a training step with a batch of ``samples``, without running it.

    A float16 network is taken to be trained with a loss scale.
    """
    x = Batch(samples, network.input_dim, numpy.dtype(network.params.flat.dtype))
    rows, scores, is_kept = _walk("", network.layers, x, is_kept=False)
    rows.append(_row(LOSS, network.last_layer, scores, scores, is_kept)._replace(shape=()))
    update, state = _update(network, optimizer)
    return StepCost(samples, x.dtype, [*rows, update], state)


def _walk(place: str, layer: Layer, x: Batch, is_kept: bool) -> tuple[list[CostRow], Batch, bool]:
    """Return the rows of a layer and all in it, its output, and True if that is kept; ``is_kept`` is of its input."""
    if type(layer) is Sequential:
        rows: list[CostRow] = []
        fused = {(phase, id(step.relu)): step.layer for phase in _PHASES for step in layer.plan(phase) if step.relu}
        for name, each in layer.sublayers():
            inside, x, is_kept = _walk(joined(place, name), each, x, is_kept)
            for phase in _PHASES:
                if before := fused.get((phase, id(each))):
                    rows[-1], inside[0] = _fused(rows[-1], inside[0], phase, _has_mask(before))
            rows += inside
        return rows, x, is_kept
    if type(layer) in _COMPOSITES:
        inside, y = [], output_of(layer, x)
        for name, each in layer.sublayers():
            inside += _walk(joined(place, name), each, x, is_kept)[0]
            is_kept = is_kept or _keeps_input(each, x)
        return [*inside, _row(place, layer, x, y, is_kept=True)], y, False
    cost, y = cost_of(layer, x), output_of(layer, x)
    return [_row(place, layer, x, y, is_kept)], y, cost is not None and cost.keeps_output


def _row(name: str, layer: Layer, x: Batch, y: Batch, is_kept: bool) -> CostRow:
    parameters = 0 if type(layer) in _COMPOSITES else sum(array.size for array in layer.params.values())
    cost = cost_of(layer, x)
    if cost is None:
        return CostRow(name, type(layer).__name__, y.shape, parameters, {}, is_known=False)
    kept = cost.kept + (cost.keeps_input and not is_kept) * x.nbytes + cost.keeps_output * y.nbytes
    work = {"forward": cost.forward, "backward": cost.backward}
    return CostRow(name, type(layer).__name__, y.shape, parameters, work, kept)


def _has_mask(layer: Layer) -> bool:
    """Return False if a layer that a Relu is fused with computes anew, in backward, where its output was above 0."""
    return not isinstance(layer, BatchNormalization) or array_module(layer.gamma) is numpy


def _fused(row: CostRow, relu: CostRow, phase: Phase, has_mask: bool) -> tuple[CostRow, CostRow]:
    """Return the rows of a layer and of the Relu behind it, a phase of which is done along with the layer's."""
    relu = relu._replace(kept=relu.kept if has_mask else 0)
    if row.is_known:
        done = Work(0, relu.work[phase].other_flops, relu.kept)
        row = row._replace(work={**row.work, phase: row.work[phase] + done})
    return row, relu._replace(work={other: work for other, work in relu.work.items() if other != phase})


def _keeps_input(layer: Layer, x: Batch) -> bool:
    """Return True if a layer, or the first of those in it, keeps its input for backward."""
    inside = layer.sublayers()
    if inside:
        return any(_keeps_input(each, x) for _, each in (inside[:1] if type(layer) is Sequential else inside))
    cost: Cost | None = cost_of(layer, x)
    return cost is not None and cost.keeps_input


def _update(network: Network, optimizer: Optimizer) -> tuple[CostRow, int]:
    """Return the row of the update of the flat buffer, and the bytes of the optimizer's state."""
    flat, kind = network.params.flat, type(optimizer)
    wide = acc_dtype(flat.dtype)
    is_scaled = flat.dtype != wide
    state = (len(optimizer.slots) + is_scaled) * flat.size * wide.itemsize
    base = next((each for each in kind.__mro__ if each in UPDATE_FLOPS), None)
    if base is None or kind.formula != base.formula:
        return CostRow(OPTIMIZER, kind.__name__, (), 0, {}, is_known=False), state
    decays = bool(optimizer.coupled_decay and optimizer.weight_decay)  # g + decay·θ before the update
    work = Work(0, (UPDATE_FLOPS[base] + 2 * decays) * flat.size, 3 * flat.nbytes + 2 * state)
    if is_scaled:  # the gradients are searched for an overflow before
        work += Work(0, flat.size, flat.nbytes)
    return CostRow(OPTIMIZER, kind.__name__, (), 0, {"update": work}), state
