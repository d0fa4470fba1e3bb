"""A step of an LSTM behind its matrix products (Hochreiter and Schmidhuber, 1997; Gers et al., 2000), and back.

Arrays are (N, H) for N samples and H units, and (N, 4·H) for the gates i, f, g and o side by side. They are written to
in place, since a step's are slices of those of all steps.
"""

from __future__ import annotations

from backend import array_module, profiling, require_active, require_same_device
from backend.types import Array
from kernels.activations import sigmoid, sigmoid_backward, tanh, tanh_backward
from kernels.core.dispatch import implementation
from kernels.core.launch import Kernel
from kernels.core.native import Function

_STEP, _STEP_BACKWARD = Function("lstm.c", "lstm"), Function("lstm.c", "lstm_backward")
_STEP_CUDA, _STEP_BACKWARD_CUDA = Kernel("lstm.cu", "lstm"), Kernel("lstm.cu", "lstm_backward")


@profiling.operation
def lstm_step(
    of_inputs: Array, of_states: Array, before: Array, gates: Array, cells: Array, squashed: Array, states: Array
) -> None:
    """Compute a step: with i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of the sums, c = f·before + i·g, h = o·tanh(c).

    Args:
        of_inputs, of_states: x·Wx + bx and h·Wh + bh, (N, 4·H).
        before: the cells before the step, (N, H).
        gates: receives i, f, g and o, (N, 4·H).
        cells, squashed, states: receive c, tanh(c) and h, (N, H).

    All are C-contiguous, of one floating dtype and library.

    Raises:
        TypeError: an array does not lie on the active device.
        ValueError: the shapes do not fit together.
    """
    _check(before, cells, squashed, states, gates=(of_inputs, of_states, gates))
    compute = implementation(before, _lstm_step_numpy, _lstm_step_cuda, _lstm_step_native)
    compute(of_inputs, of_states, before, gates, cells, squashed, states)


@profiling.operation
def lstm_step_backward(
    dout: Array, dh: Array | None, dc: Array, gates: Array, before: Array, squashed: Array, dsums: Array
) -> None:
    """Compute the gradients of a step's sums.

    Args:
        dout: the gradient of h from outside, (N, H).
        dh: that from the step after, (N, H); None at the last step.
        dc: the gradient of c from the step after, (N, H); receives that for the step before.
        gates, before, squashed: as ``lstm_step`` was given them or wrote them.
        dsums: receives the gradient of x·Wx + bx, which is that of h·Wh + bh, (N, 4·H).

    All are C-contiguous, of one floating dtype and library.

    Raises:
        TypeError: an array does not lie on the active device.
        ValueError: the shapes do not fit together.
    """
    _check(dout, *([] if dh is None else [dh]), dc, before, squashed, gates=(gates, dsums))
    compute = implementation(dc, _lstm_step_backward_numpy, _lstm_step_backward_cuda, _lstm_step_backward_native)
    compute(dout, dh, dc, gates, before, squashed, dsums)


def _check(*units: Array, gates: tuple[Array, ...]) -> None:
    first = units[0]
    require_active(first)
    require_same_device(*units, *gates)
    shapes, expected = {each.shape for each in units}, (len(first), 4 * first.shape[-1])
    if len(shapes) > 1 or first.ndim != 2 or any(each.shape != expected for each in gates):
        given = ", ".join(str(each.shape) for each in (*units, *gates))
        raise ValueError(f"a step of an LSTM needs arrays (N, H) and, of gates, (N, 4·H), got {given}")


def _lstm_step_numpy(
    of_inputs: Array, of_states: Array, before: Array, gates: Array, cells: Array, squashed: Array, states: Array
) -> None:
    (i, f, g, o), own = _columns(gates), _columns(of_inputs + of_states)
    i[...], f[...], g[...], o[...] = sigmoid(own[0]), sigmoid(own[1]), tanh(own[2]), sigmoid(own[3])
    cells[...] = f * before + i * g
    squashed[...] = tanh(cells)
    states[...] = o * squashed


def _lstm_step_native(
    of_inputs: Array, of_states: Array, before: Array, gates: Array, cells: Array, squashed: Array, states: Array
) -> None:
    samples, hidden = before.shape
    arrays = of_inputs, of_states, before, gates, cells, squashed, states
    _STEP.share(before.dtype, samples, 16 * hidden * before.itemsize, *arrays, samples, hidden)


def _lstm_step_cuda(
    of_inputs: Array, of_states: Array, before: Array, gates: Array, cells: Array, squashed: Array, states: Array
) -> None:
    arrays = of_inputs, of_states, before, gates, cells, squashed, states
    _STEP_CUDA(before.size, *arrays, before.size, *before.shape)


def _lstm_step_backward_numpy(
    dout: Array, dh: Array | None, dc: Array, gates: Array, before: Array, squashed: Array, dsums: Array
) -> None:
    (i, f, g, o), (di, df, dg, do) = _columns(gates), _columns(dsums)
    upstream = dout + (0 if dh is None else dh)
    dcell = dc + tanh_backward(upstream * o, squashed)
    di[...] = sigmoid_backward(dcell * g, i)
    df[...] = sigmoid_backward(dcell * before, f)
    dg[...] = tanh_backward(dcell * i, g)
    do[...] = sigmoid_backward(upstream * squashed, o)
    dc[...] = dcell * f


def _lstm_step_backward_native(
    dout: Array, dh: Array | None, dc: Array, gates: Array, before: Array, squashed: Array, dsums: Array
) -> None:
    samples, hidden = dc.shape
    arrays = dout, dh, dc, gates, before, squashed, dsums
    _STEP_BACKWARD.share(dc.dtype, samples, 14 * hidden * dc.itemsize, *arrays, samples, hidden)


def _lstm_step_backward_cuda(
    dout: Array, dh: Array | None, dc: Array, gates: Array, before: Array, squashed: Array, dsums: Array
) -> None:
    later = array_module(dc).empty(0, dc.dtype) if dh is None else dh
    _STEP_BACKWARD_CUDA(dc.size, dout, later, dc, gates, before, squashed, dsums, dc.size, later.size, *dc.shape)


def _columns(gates: Array) -> list[Array]:
    """Return the columns of each gate: views (N, H)."""
    hidden = gates.shape[1] // 4
    return [gates[:, gate * hidden : (gate + 1) * hidden] for gate in range(4)]
