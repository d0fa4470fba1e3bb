"""A step of a GRU behind its matrix products (Cho et al., 2014, with the reset gate behind the product), and back.

Arrays are (N, H) for N samples and H units, and (N, 3·H) for the gates r, z and n side by side. They are written to in
place, since a step's are slices of those of all steps.
"""

from __future__ import annotations

from backend import profiling
from backend.types import Array
from kernels.activations import sigmoid, sigmoid_backward, tanh, tanh_backward
from kernels.core.dispatch import implementation
from kernels.core.gates import check_step, columns_of_gates, launch_step_backward, share_step
from kernels.core.launch import Kernel
from kernels.core.native import Function

_STEP, _STEP_BACKWARD = Function("gru.c", "gru"), Function("gru.c", "gru_backward")
_STEP_CUDA, _STEP_BACKWARD_CUDA = Kernel("gru.cu", "gru"), Kernel("gru.cu", "gru_backward")


@profiling.operation
def gru_step(of_inputs: Array, of_states: Array, before: Array, gates: Array, products: Array, states: Array) -> None:
    """Compute a step: with a = of_inputs and b = of_states, r = sigmoid(a + b), z = sigmoid(a + b), n = tanh(a + r·b)
    and h = (1 - z)·n + z·before.

    Args:
        of_inputs, of_states: x·Wx + bx and h·Wh + bh, (N, 3·H).
        before: the state before the step, (N, H).
        gates: receives r, z and n, (N, 3·H).
        products: receives b of the gate n, (N, H), for the backward.
        states: receives h, (N, H).

    All are C-contiguous, of one floating dtype and library.

    Raises:
        TypeError: an array does not lie on the active device.
        ValueError: the shapes do not fit together.
    """
    check_step("a GRU", 3, [before, products, states], [of_inputs, of_states, gates])
    compute = implementation(before, _gru_step_numpy, _gru_step_cuda, _gru_step_native)
    compute(of_inputs, of_states, before, gates, products, states)


@profiling.operation
def gru_step_backward(
    dout: Array,
    dproduct: Array | None,
    carried: Array,
    gates: Array,
    products: Array,
    before: Array,
    of_inputs: Array,
    of_states: Array,
) -> None:
    """Compute the gradients of a step's sums.

    Args:
        dout: the gradient of h from outside, (N, H).
        dproduct: that from the matrix product of the step after, (N, H); None at the last step.
        carried: the rest of the gradient from the step after, (N, H); receives that for the step before.
        gates, products, before: as ``gru_step`` was given them or wrote them.
        of_inputs, of_states: receive the gradients of x·Wx + bx and of h·Wh + bh, (N, 3·H).

    All are C-contiguous, of one floating dtype and library.

    Raises:
        TypeError: an array does not lie on the active device.
        ValueError: the shapes do not fit together.
    """
    units = [dout, *([] if dproduct is None else [dproduct]), carried, products, before]
    check_step("a GRU", 3, units, [gates, of_inputs, of_states])
    compute = implementation(carried, _gru_step_backward_numpy, _gru_step_backward_cuda, _gru_step_backward_native)
    compute(dout, dproduct, carried, gates, products, before, of_inputs, of_states)


def _gru_step_numpy(
    of_inputs: Array, of_states: Array, before: Array, gates: Array, products: Array, states: Array
) -> None:
    (ar, az, an), (br, bz, bn), (r, z, n) = (columns_of_gates(each, 3) for each in (of_inputs, of_states, gates))
    products[...] = bn
    r[...] = sigmoid(ar + br)
    z[...] = sigmoid(az + bz)
    n[...] = tanh(an + r * bn)
    states[...] = (1 - z) * n + z * before


def _gru_step_native(*arrays: Array) -> None:
    share_step(_STEP, arrays[-1], 12, *arrays)


def _gru_step_cuda(*arrays: Array) -> None:
    states = arrays[-1]
    _STEP_CUDA(states.size, *arrays, states.size, *states.shape)


def _gru_step_backward_numpy(
    dout: Array,
    dproduct: Array | None,
    carried: Array,
    gates: Array,
    products: Array,
    before: Array,
    of_inputs: Array,
    of_states: Array,
) -> None:
    (r, z, n), (dr, dz, dn) = columns_of_gates(gates, 3), columns_of_gates(of_inputs, 3)
    dh = dout + (carried if dproduct is None else carried + dproduct)
    dn[...] = tanh_backward(dh * (1 - z), n)
    dz[...] = sigmoid_backward(dh * (before - n), z)
    dr[...] = sigmoid_backward(dn * products, r)
    of_states[...] = of_inputs
    columns_of_gates(of_states, 3)[2][...] = dn * r
    carried[...] = dh * z


def _gru_step_backward_native(dout: Array, dproduct: Array | None, *arrays: Array) -> None:
    share_step(_STEP_BACKWARD, dout, 15, dout, dproduct, *arrays)


def _gru_step_backward_cuda(dout: Array, dproduct: Array | None, *arrays: Array) -> None:
    launch_step_backward(_STEP_BACKWARD_CUDA, dout, dproduct, *arrays)
