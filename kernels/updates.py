"""An optimizer's update of all its arrays in one launch, where they lie on a GPU.

The formulas are those of ``training.optim``, which the CPU runs ufunc by ufunc on pieces in cache; a GPU wants
each number read once, and written once. The compiler may not fuse a product and a sum: every operation is rounded as
NumPy rounds it, in the same order, and parameters come out the same on both, but for numbers below 1e-38, and for
Adam and AdamW under a loss scale: their corrections for the number of steps are then made on the device, in the dtype
of sums, and a step may differ from the host's, where they are float64, by some 1e-6 of itself.
Least bytes for n parameters and s arrays of state, the master among them:
n·(2·sizeof(parameter) + sizeof(gradient) + 2·s·sizeof(state)).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from backend import profiling
from kernels.core.dtypes import acc_dtype
from kernels.loss_scale import FINITE, MULTIPLIER


@profiling.operation
def update_on_device(
    name: str,
    formula: str,
    scalars: Mapping[str, float],
    parameter: Any,
    gradient: Any,
    state: Mapping[str, Any],
    master: Any = None,
    control: Any = None,
    skipped: Any = None,
    counts: bool = False,
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
        master: the parameter in the dtype of sums, as ``master_of`` understands it, or None; changed.
        control: of ``kernels.loss_scale``, or None: gradients are multiplied by its multiplier, and nothing is
            changed where it says that one is not finite, but ``skipped``.
        skipped: with ``control``: int32 (1,) of the optimizer's own, how many of its steps were skipped. The formula
            can read it.
        counts: whether to add this step to it, where it is skipped: true for one array of a step.
    """
    dtype = acc_dtype(parameter.dtype).name
    given: dict[str, Any] = {"gradient": gradient}
    if control is not None:
        given |= {"control": control, "counts": int(counts)}
    changed = {"parameter": parameter} | ({} if master is None else {"master": master}) | dict(state)
    if control is not None:
        changed["skipped"] = skipped
    kernel = _kernel(name, formula, tuple(given), tuple(scalars), tuple(changed), dtype)
    kernel(*given.values(), *scalars.values(), *changed.values())


def master_of(parameter: Any, master: Any) -> Any:
    """A master copy in float32 with the values that were set in the float16 ``parameter`` itself taken over.

    Where the parameter is not the master rounded, someone else wrote to it: a file was loaded, the best model restored.
    """
    return numpy.where(master.astype(parameter.dtype) == parameter, master, parameter)


@functools.cache
def _kernel(
    name: str, formula: str, given: Sequence[str], scalars: Sequence[str], changed: Sequence[str], dtype: str
) -> Any:
    import cupy

    ctype = "float" if dtype == "float32" else "double"
    types = {"gradient": "G", "control": "raw float32", "skipped": "raw int32", "counts": "int32", "parameter": "P"}
    lines = [f"{ctype} p = parameter, g = gradient, step = 0;", formula, "parameter = p;"]
    if "master" in changed:
        lines.insert(1, f"if (static_cast<{ctype}>(static_cast<P>(master)) == p) p = master;")
        lines.append("master = p;")
    if "control" in given:
        lines = [f"if (control[{FINITE}] != 0) {{", lines[0], f"g *= control[{MULTIPLIER}];", *lines[1:]]
        lines.append("} else if (i == 0) skipped[0] += counts;")  # a step that is skipped reads it nowhere
    return cupy.ElementwiseKernel(
        ", ".join([*(f"{types[each]} {each}" for each in given), *(f"{dtype} {scalar}" for scalar in scalars)]),
        ", ".join(f"{types.get(each, dtype)} {each}" for each in changed),
        " ".join(lines),
        f"xpnet_{name.lower()}",
        options=("--fmad=false",),
    )
