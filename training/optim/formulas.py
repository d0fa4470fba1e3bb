"""Run an optimizer's formula for all elements of an array: by NumPy, or in one kernel on a GPU.

A formula is Python and C alike: NumPy runs it over whole arrays, and for a GPU one kernel is made of it, which reads
each number once and writes it once. Its compiler may not fuse a product and a sum: every operation is rounded as NumPy
rounds it, in the same order. So parameters have the same bits on both, with two exceptions: numbers below 1e-38; and
Adam and AdamW under a loss scale, whose corrections for the number of steps are then computed on the device, in the
dtype of sums, where the host uses float64: a step may differ by about 1e-6 of itself.

Least bytes for n parameters and s arrays of state, the master among them:
n·(2·sizeof(parameter) + sizeof(gradient) + 2·s·sizeof(state)).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy

from backend.types import Array
from kernels.core.dtypes import acc_dtype
from kernels.loss_scale import FINITE, MULTIPLIER


class Scaled(NamedTuple):
    """Arrays and switches of an update under a loss scale.

    Attributes:
        control: float32, as of ``kernels.loss_scale``. Gradients are multiplied by its multiplier. Where it says that a
            gradient is not finite, nothing is changed but ``skipped``.
        skipped: int32 (1,), how many of the optimizer's steps were skipped.
        counts: add a skipped step to ``skipped``: true for one array of each step.
    """

    control: Array
    skipped: Array
    counts: bool


def update_on_host(
    formula: str,
    numbers: Mapping[str, float],
    parameter: Array,
    gradient: Array,
    state: Mapping[str, Array],
    multiplier: float | None = None,
) -> None:
    """Run ``formula`` by NumPy.

    Args:
        formula, numbers, state: as for ``update_on_device``.
        parameter: of any shape and floating dtype; changed.
        gradient: of the same shape.
        multiplier: of the gradient; None for none.
    """
    p, g = state.get("master", parameter), gradient.astype(acc_dtype(parameter.dtype), copy=False)
    if p is not parameter:  # a parameter that is not its master rounded was set by someone else: it counts
        numpy.copyto(p, parameter, where=p.astype(parameter.dtype) != parameter)
    if multiplier is not None:
        g = g * multiplier
    exec(_compiled(formula), vars(numpy), {**numbers, **state, "p": p, "g": g})
    if p is not parameter:
        numpy.copyto(parameter, p, casting="same_kind")


@functools.cache
def _compiled(formula: str) -> Any:
    return compile(formula, "the formula of an optimizer", "exec")


def update_on_device(
    name: str,
    formula: str,
    numbers: Mapping[str, float],
    parameter: Array,
    gradient: Array,
    state: Mapping[str, Array],
    scaled: Scaled | None = None,
) -> None:
    """Run ``formula`` for every element, in place, on the current stream.

    Args:
        name: the optimizer's; the kernel is called ``xpnet_<name>`` in a profile.
        formula: statements over ``p`` (the parameter), ``g`` (its gradient), ``step`` (for an intermediate value), the
            names in ``numbers`` and ``state``, and under a loss scale ``skipped[0]``. All are in the dtype of sums.
            ``p`` and the state are changed in place: ``p -= …``, never ``p = …``.
        numbers: plain numbers by name.
        parameter: device array of any shape and floating dtype; changed.
        gradient: array of the same shape.
        state: arrays of that shape in the dtype of sums, by name; changed. One called ``"master"`` holds the parameter
            in that dtype.
        scaled: under a loss scale only.
    """
    dtype = acc_dtype(parameter.dtype).name
    given: dict[str, Any] = {"gradient": gradient}
    changed = {"parameter": parameter, **state}
    if scaled is not None:
        given |= {"control": scaled.control, "counts": int(scaled.counts)}
        changed["skipped"] = scaled.skipped
    kernel = _kernel(name, formula, tuple(given), tuple(numbers), tuple(changed), dtype)
    kernel(*given.values(), *numbers.values(), *changed.values())


@functools.cache
def _kernel(
    name: str, formula: str, given: tuple[str, ...], numbers: tuple[str, ...], changed: tuple[str, ...], dtype: str
) -> Any:
    import cupy

    ctype = "float" if dtype == "float32" else "double"
    types = {"gradient": "G", "control": "raw float32", "skipped": "raw int32", "counts": "int32", "parameter": "P"}
    lines = [f"{ctype} p = parameter, g = gradient, step = 0;"]
    if "control" in given:
        lines.append(f"g *= control[{MULTIPLIER}];")
    if "master" in changed:  # a parameter that is not its master rounded was set by someone else: it counts
        lines.append(f"if (static_cast<{ctype}>(static_cast<P>(master)) == p) p = master;")
    lines += [formula, "parameter = p;"]
    if "master" in changed:
        lines.append("master = p;")
    if "control" in given:  # the thread that counts a skipped step reads the count nowhere else
        lines = [f"if (control[{FINITE}] != 0) {{", *lines, "} else if (i == 0) skipped[0] += counts;"]
    return cupy.ElementwiseKernel(
        ", ".join([*(f"{types[each]} {each}" for each in given), *(f"{dtype} {number}" for number in numbers)]),
        ", ".join(f"{types.get(each, dtype)} {each}" for each in changed),
        " ".join(lines),
        f"xpnet_{name.lower()}",
        options=("--fmad=false",),
    )
