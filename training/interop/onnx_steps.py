"""Operators of ONNX as layers over sequences: embeddings, and recurrent layers.

ONNX's recurrent operators take the steps of sequences before the batch, (T, N, D), and return (T, directions, N, H).
Around them are a ``Transpose``, a ``Squeeze`` and another ``Transpose``, which here are only other layouts. With
layout=1 they take (N, T, D) and return (N, T, directions, H).
"""

from __future__ import annotations

import numpy

from layers import GRU, LSTM, RNN, Embedding, Reshape
from layers.base import Shape
from training.files import clipped
from training.interop.onnx_branches import Value
from training.interop.onnx_operators import reads
from training.interop.onnx_reading import BATCH, Reading
from training.interop.onnx_sequences import GATES
from training.interop.onnx_tidy import Item

STEPS, DIRECTIONS = "(T, N, …)", "(T, 1, N, …)"
"""The layouts of sequences between these nodes; that of all others is "", with the batch first."""

RECURRENT: dict[str, type[RNN | LSTM | GRU]] = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
"""The recurrent layers by operator."""

_ACTIVATIONS = {
    "RNN": ["Tanh"],
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
}


def full_shape(value: Value) -> Shape:
    """Return the shape of a value with the batch as ``BATCH``, in its layout."""
    if not value.layout:
        return (BATCH, *value.shape)
    steps, *others = value.shape
    return (steps, BATCH, *others) if value.layout == STEPS else (steps, 1, BATCH, *others)


def of_steps(at: Reading, layout: str) -> tuple[list[Item], str] | None:
    """Return the layers of a node whose input or output is of another layout, and the output's layout.

    Args:
        layout: of the input.

    Returns:
        None for a node that takes the batch first and returns it so.

    Raises:
        ValueError: there are no layers for it.
    """
    kind = at.node.kind
    if kind in RECURRENT:
        if not at.attribute("layout", 0):
            if layout != STEPS:
                raise ValueError("expected sequences with their steps before the batch, by a Transpose of 1, 0, 2")
            return [_recurrent(at)], DIRECTIONS
        if layout or len(at.shape) != 2:
            given = layout or f"samples of {at.shape}"
            raise ValueError(f"expected sequences (N, T, D), as layout=1 says, got {given}")
        layer = _recurrent(at)
        return [layer, Reshape((at.shape[0], 1, layer.hidden))], ""
    is_swap = kind == "Transpose" and len(at.shape) == 2 and list(at.attribute("perm", ())) == [1, 0, 2]
    if is_swap and layout != DIRECTIONS:
        return [], "" if layout else STEPS
    if kind == "Squeeze" and layout == DIRECTIONS:
        axes = at.attribute("axes", None) if at.opset < 13 else at.optional(1, "axes")
        if axes is not None and list(axes) == [1]:
            return [], STEPS
    if layout:
        raise ValueError(f"its input is {layout}, the steps of sequences before the batch; layers take the batch first")
    return None


def _recurrent(at: Reading) -> RNN | LSTM | GRU:
    kind = RECURRENT[at.node.kind]
    usual = at.attribute("direction", "forward") == "forward" and not at.attribute("input_forget", 0)
    usual = usual and "clip" not in at.node.attributes
    activations = [each.decode() if isinstance(each, bytes) else each for each in at.attribute("activations", [])]
    if not usual or activations not in ([], _ACTIVATIONS[at.node.kind]):
        raise ValueError("expected the direction forward, the usual activations, and neither clip nor input_forget")
    if kind is GRU and not at.attribute("linear_before_reset", 0):
        raise ValueError("expected linear_before_reset=1: the reset gate behind the product, as GRU has it")
    for index, what in ((4, "sequence_lens"), (5, "initial_h"), (6, "initial_c"), (7, "P")):
        array = at.optional(index, what)
        if array is not None and (index in (4, 7) or array.any()):
            raise ValueError(f"{what} is given; sequences have one length and begin with zeros")
    W, R, B = at.array(1, "W"), at.array(2, "R"), at.optional(3, "B")
    if W.ndim != 3 or R.ndim != 3 or len(W) != 1 or len(R) != 1 or R.shape[1] % kind.gates:
        raise ValueError(f"expected W and R of one direction, got {W.shape} and {R.shape}")
    hidden = at.attribute("hidden_size", R.shape[2])
    if R.shape[1:] != (kind.gates * hidden, hidden) or W.shape[1] != R.shape[1]:
        raise ValueError(f"its hidden_size {clipped(hidden)} does not fit W {W.shape} and R {R.shape}")
    if B is not None and B.size != 2 * R.shape[1]:
        raise ValueError(f"expected {2 * R.shape[1]} numbers as B, got {B.size}")
    biases = numpy.zeros(2 * R.shape[1]) if B is None else B.reshape(-1)
    arrays = W[0], R[0], *numpy.split(biases, 2)
    return kind(*(at.parameter(_columns_by_gate(kind, array)) for array in arrays))


def _columns_by_gate(kind: type[RNN | LSTM | GRU], array: numpy.ndarray) -> numpy.ndarray:
    """Return the transpose of ONNX's (gates·H, …), with the gates in the layer's order."""
    parts = dict(zip(GATES[kind], numpy.split(array, kind.gates), strict=True))
    return numpy.concatenate([parts[gate] for gate in sorted(parts)]).T


@reads("Gather")
def _gather(at: Reading) -> list[Item]:
    W = at.array(0, "the rows to choose from")
    if at.attribute("axis", 0) != 0 or W.ndim != 2:
        raise ValueError(f"expected a matrix whose rows are chosen, got {W.shape} and axis {at.attribute('axis', 0)}")
    return [Embedding(at.parameter(W))]
