"""The arrays of a step of a recurrent layer: (N, H) for N samples and H units, and (N, gates·H), gates side by side."""

from __future__ import annotations

from typing import Any

from backend import array_module, require_active, require_same_device
from backend.types import Array
from kernels.core.launch import Kernel
from kernels.core.native import Function


def check_step(layer: str, count: int, units: list[Array], gates: list[Array]) -> None:
    """Check the arrays of a step.

    Args:
        layer: its name in errors, "an LSTM".
        count: of the gates.
        units: the arrays (N, H).
        gates: those of gates, (N, count·H).

    Raises:
        TypeError: an array does not lie on the active device, or is of another dtype.
        ValueError: the shapes do not fit together.
    """
    first = units[0]
    require_active(first)
    require_same_device(*units, *gates)
    if any(each.dtype != first.dtype for each in (*units, *gates)):
        given = ", ".join(str(each.dtype) for each in (*units, *gates))
        raise TypeError(f"a step of {layer} needs arrays of one dtype, got {given}")
    fits = first.ndim == 2 and all(each.shape == first.shape for each in units)
    if not fits or any(each.shape != (len(first), count * first.shape[1]) for each in gates):
        given = ", ".join(str(each.shape) for each in (*units, *gates))
        raise ValueError(f"a step of {layer} needs arrays (N, H) and, of gates, (N, {count}·H), got {given}")


def columns_of_gates(gates: Array, count: int) -> list[Array]:
    """Return the columns of each gate: views (N, H)."""
    hidden = gates.shape[1] // count
    return [gates[:, gate * hidden : (gate + 1) * hidden] for gate in range(count)]


def share_step(kernel: Function, unit: Array, numbers: int, *arrays: Any) -> None:
    """Compute a step in C, sharing the samples.

    Args:
        unit: one of the arrays (N, H).
        numbers: read and written for one unit.
    """
    samples, hidden = unit.shape
    kernel.share(unit.dtype, samples, numbers * hidden * unit.itemsize, *arrays, samples, hidden)


def launch_step_backward(kernel: Kernel, dout: Array, later: Array | None, *arrays: Array) -> None:
    """Compute the way back through a step on a GPU; ``later`` is the gradient that the last step lacks."""
    later = array_module(dout).empty(0, dout.dtype) if later is None else later
    kernel(dout.size, dout, later, *arrays, dout.size, later.size, *dout.shape)
