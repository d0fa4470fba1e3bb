"""A step of a GRU behind its matrix products (Cho et al., 2014, with the reset gate behind the product), and back.

Arrays are (N, H) for N samples and H units, and (N, 3·H) for the gates r, z and n side by side. They are written to in
place, since a step's are slices of those of all steps.
"""

from __future__ import annotations

from backend import array_module, profiling, require_active, require_same_device
from backend.types import Array
from kernels.activations import sigmoid, sigmoid_backward, tanh, tanh_backward
from kernels.core.dispatch import implementation
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
    _check(before, products, states, gates=(of_inputs, of_states, gates))
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
    units = dout, *([] if dproduct is None else [dproduct]), carried, products, before
    _check(*units, gates=(gates, of_inputs, of_states))
    compute = implementation(carried, _gru_step_backward_numpy, _gru_step_backward_cuda, _gru_step_backward_native)
    compute(dout, dproduct, carried, gates, products, before, of_inputs, of_states)


def _check(*units: Array, gates: tuple[Array, ...]) -> None:
    first = units[0]
    require_active(first)
    require_same_device(*units, *gates)
    shapes, expected = {each.shape for each in units}, (len(first), 3 * first.shape[-1])
    if len(shapes) > 1 or first.ndim != 2 or any(each.shape != expected for each in gates):
        given = ", ".join(str(each.shape) for each in (*units, *gates))
        raise ValueError(f"a step of a GRU needs arrays (N, H) and, of gates, (N, 3·H), got {given}")


def _gru_step_numpy(
    of_inputs: Array, of_states: Array, before: Array, gates: Array, products: Array, states: Array
) -> None:
    (ar, az, an), (br, bz, bn), (r, z, n) = map(_columns, (of_inputs, of_states, gates))
    products[...] = bn
    r[...] = sigmoid(ar + br)
    z[...] = sigmoid(az + bz)
    n[...] = tanh(an + r * bn)
    states[...] = (1 - z) * n + z * before


def _gru_step_native(
    of_inputs: Array, of_states: Array, before: Array, gates: Array, products: Array, states: Array
) -> None:
    samples, hidden = before.shape
    arrays = of_inputs, of_states, before, gates, products, states
    _STEP.share(before.dtype, samples, 12 * hidden * before.itemsize, *arrays, samples, hidden)


def _gru_step_cuda(
    of_inputs: Array, of_states: Array, before: Array, gates: Array, products: Array, states: Array
) -> None:
    arrays = of_inputs, of_states, before, gates, products, states
    _STEP_CUDA(before.size, *arrays, before.size, *before.shape)


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
    (r, z, n), (dr, dz, dn) = _columns(gates), _columns(of_inputs)
    dh = dout + (carried if dproduct is None else carried + dproduct)
    dn[...] = tanh_backward(dh * (1 - z), n)
    dz[...] = sigmoid_backward(dh * (before - n), z)
    dr[...] = sigmoid_backward(dn * products, r)
    of_states[...] = of_inputs
    _columns(of_states)[2][...] = dn * r
    carried[...] = dh * z


def _gru_step_backward_native(
    dout: Array,
    dproduct: Array | None,
    carried: Array,
    gates: Array,
    products: Array,
    before: Array,
    of_inputs: Array,
    of_states: Array,
) -> None:
    samples, hidden = carried.shape
    arrays = dout, dproduct, carried, gates, products, before, of_inputs, of_states
    _STEP_BACKWARD.share(carried.dtype, samples, 15 * hidden * carried.itemsize, *arrays, samples, hidden)


def _gru_step_backward_cuda(
    dout: Array,
    dproduct: Array | None,
    carried: Array,
    gates: Array,
    products: Array,
    before: Array,
    of_inputs: Array,
    of_states: Array,
) -> None:
    later = array_module(carried).empty(0, carried.dtype) if dproduct is None else dproduct
    arrays = dout, later, carried, gates, products, before, of_inputs, of_states
    _STEP_BACKWARD_CUDA(carried.size, *arrays, carried.size, later.size, *carried.shape)


def _columns(gates: Array) -> list[Array]:
    """Return the columns of each gate: views (N, H)."""
    hidden = gates.shape[1] // 3
    return [gates[:, gate * hidden : (gate + 1) * hidden] for gate in range(3)]
