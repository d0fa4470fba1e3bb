"""An optimizer's update of all its arrays in one launch, where they lie on a GPU.

The formulas are those of :mod:`training.optimizers`, which the CPU runs ufunc by ufunc on pieces in cache; a GPU wants
each number read once, and written once. The compiler may not fuse a product and a sum: every operation is rounded as
NumPy rounds it, in the same order, and parameters come out the same on both, but for numbers below 1e-38.
Least bytes for n parameters and s arrays of state: n·(2·sizeof(parameter) + sizeof(gradient) + 2·s·sizeof(state)).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from kernels.gemm import accumulator


def update_on_device(
    name: str,
    formula: str,
    scalars: Mapping[str, float],
    parameter: Any,
    gradient: Any,
    state: Mapping[str, Any],
) -> None:
    """Runs ``formula`` for every element, in place, on the current stream.

    Args:
        name: of the optimizer; the kernel's in a profile.
        formula: C statements over ``p`` (the parameter), ``g`` (its gradient), ``step`` (for a value between), the
            names of ``scalars`` and those of ``state``, all in the dtype of sums. What they leave in ``p`` and in the
            state is kept.
        scalars: plain numbers by name.
        parameter: device array, any shape and floating dtype; changed.
        gradient: of the same shape.
        state: arrays of that shape in the dtype of sums, by name; changed.
    """
    kernel = _kernel(name, formula, tuple(scalars), tuple(state), accumulator(parameter.dtype).name)
    kernel(gradient, *scalars.values(), parameter, *state.values())


@functools.cache
def _kernel(name: str, formula: str, scalars: Sequence[str], state: Sequence[str], dtype: str) -> Any:
    import cupy

    ctype = "float" if dtype == "float32" else "double"
    return cupy.ElementwiseKernel(
        ", ".join(["G gradient", *(f"{dtype} {scalar}" for scalar in scalars)]),
        ", ".join(["P parameter", *(f"{dtype} {slot}" for slot in state)]),
        f"{ctype} p = parameter, g = gradient, step = 0; {formula} parameter = p;",
        f"xpnet_{name.lower()}",
        options=("--fmad=false",),
    )
