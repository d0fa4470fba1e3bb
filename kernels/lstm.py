"""A step of an LSTM behind its matrix products (Hochreiter and Schmidhuber, 1997; Gers et al., 2000), and back.

Arrays are (N, H) for N samples and H units, and (N, 4·H) for the gates i, f, g and o side by side. They are written to
in place, since a step's are slices of those of all steps.
"""

from __future__ import annotations

from backend import profiling
from backend.types import Array
from kernels.activations import sigmoid, sigmoid_backward, tanh, tanh_backward
from kernels.core.dispatch import implementation
from kernels.core.gates import check_step, columns_of_gates, launch_step_backward, share_step
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
    check_step("an LSTM", 4, [before, cells, squashed, states], [of_inputs, of_states, gates])
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
    units = [dout, *([] if dh is None else [dh]), dc, before, squashed]
    check_step("an LSTM", 4, units, [gates, dsums])
    compute = implementation(dc, _lstm_step_backward_numpy, _lstm_step_backward_cuda, _lstm_step_backward_native)
    compute(dout, dh, dc, gates, before, squashed, dsums)


def _lstm_step_numpy(
    of_inputs: Array, of_states: Array, before: Array, gates: Array, cells: Array, squashed: Array, states: Array
) -> None:
    (i, f, g, o), own = columns_of_gates(gates, 4), columns_of_gates(of_inputs + of_states, 4)
    i[...], f[...], g[...], o[...] = sigmoid(own[0]), sigmoid(own[1]), tanh(own[2]), sigmoid(own[3])
    cells[...] = f * before + i * g
    squashed[...] = tanh(cells)
    states[...] = o * squashed


def _lstm_step_native(*arrays: Array) -> None:
    share_step(_STEP, arrays[-1], 16, *arrays)


def _lstm_step_cuda(*arrays: Array) -> None:
    states = arrays[-1]
    _STEP_CUDA(states.size, *arrays, states.size, *states.shape)


def _lstm_step_backward_numpy(
    dout: Array, dh: Array | None, dc: Array, gates: Array, before: Array, squashed: Array, dsums: Array
) -> None:
    (i, f, g, o), (di, df, dg, do) = columns_of_gates(gates, 4), columns_of_gates(dsums, 4)
    upstream = dout + (0 if dh is None else dh)
    dcell = dc + tanh_backward(upstream * o, squashed)
    di[...] = sigmoid_backward(dcell * g, i)
    df[...] = sigmoid_backward(dcell * before, f)
    dg[...] = tanh_backward(dcell * i, g)
    do[...] = sigmoid_backward(upstream * squashed, o)
    dc[...] = dcell * f


def _lstm_step_backward_native(dout: Array, dh: Array | None, *arrays: Array) -> None:
    share_step(_STEP_BACKWARD, dout, 14, dout, dh, *arrays)


def _lstm_step_backward_cuda(dout: Array, dh: Array | None, *arrays: Array) -> None:
    launch_step_backward(_STEP_BACKWARD_CUDA, dout, dh, *arrays)
