"""Dynamic loss scaling (Micikevicius et al. 2018, section 3.2), decided where the gradients lie: nothing is read back.

Gradients below 6e-8 vanish in float16. So the loss is multiplied by a scale before backward, and the gradients divided
by it in float32 afterwards. A scale that is too large shows as a gradient that is infinite or NaN: that step is skipped
and the scale halved; after enough steps without, it is doubled.

All that an update needs to know of it is one small array, the control, float32:
"""

from __future__ import annotations

import functools
from typing import Any

import numpy

from backend import array_module, profiling

SCALE, FINITE, MULTIPLIER, GOOD, SKIPPED = range(5)
"""What stands where in a control: the scale, whether all gradients of this step were finite (1 or 0), what gradients
are multiplied by before they are used, finite steps since the scale last changed, and steps skipped in all."""

LARGEST = 2.0**24
SMALLEST = 1 / LARGEST


def control(scale: float, library: Any) -> Any:
    """A control that starts with ``scale``, a power of two: multiplying by it is exact."""
    return library.asarray([scale, 1, 1 / scale, 0, 0], numpy.float32)


def restart(control: Any) -> None:
    """Makes the control ready for a step after one that did not come to its end; the scale and the counts stay."""
    control[FINITE] = 1
    control[MULTIPLIER] = 1 / control[SCALE]


@profiling.operation
def find_overflow(gradient: Any, control: Any) -> None:
    """Notes in ``control`` if any number of ``gradient`` is infinite or NaN. Reads the gradient once."""
    if array_module(gradient, control) is numpy:
        if not numpy.isfinite(gradient).all():
            control[FINITE] = 0
    elif gradient.size:
        _find_overflow()(gradient, control)


def limit_norm(norm: Any, max_norm: float, control: Any) -> None:
    """Makes the multiplier one that scales gradients down to ``max_norm``, too, where ``norm`` exceeds it.

    Args:
        norm: global L2 norm of the gradients as they are, with the scale in them: 0-d, on the device.
        max_norm: the greatest to let through, without the scale.
    """
    array_module(norm, control)
    control[MULTIPLIER] = clip_factor(norm / control[SCALE], max_norm) / control[SCALE]


def clip_factor(norm: Any, max_norm: float) -> Any:
    """What gradients of global L2 norm ``norm`` (0-d) are to be multiplied by: exactly 1 up to ``max_norm``."""
    return max_norm / array_module(norm).maximum(norm, max_norm)


@profiling.operation
def adjust(control: Any, growth_interval: int) -> None:
    """Ends a step: moves the scale, counts, and makes the control ready for the next step."""
    if array_module(control) is not numpy:
        _adjust()(growth_interval, control, size=1)
        return
    if control[FINITE]:
        control[GOOD] += 1
        if control[GOOD] >= growth_interval:
            control[SCALE], control[GOOD] = min(control[SCALE] * 2, LARGEST), 0
    else:
        control[SCALE], control[GOOD] = max(control[SCALE] / 2, SMALLEST), 0
        control[SKIPPED] += 1
    control[FINITE], control[MULTIPLIER] = 1, 1 / control[SCALE]


@functools.cache
def _find_overflow() -> Any:
    import cupy

    # Infinity and NaN less themselves are NaN. Whichever threads write, they write the same, in any order.
    code = f"if (!(gradient - gradient == 0)) control[{FINITE}] = 0;"
    return cupy.ElementwiseKernel("T gradient", "raw float32 control", code, "xpnet_find_overflow")


@functools.cache
def _adjust() -> Any:
    import cupy

    code = f"""
        float scale = control[{SCALE}], good = 0;
        if (control[{FINITE}] == 0) {{
            scale = fmaxf(scale / 2, {SMALLEST!r}f);
            control[{SKIPPED}] += 1;
        }} else {{
            good = control[{GOOD}] + 1;
            if (good >= growth_interval) {{ scale = fminf(scale * 2, {LARGEST!r}f); good = 0; }}
        }}
        control[{SCALE}] = scale; control[{GOOD}] = good; control[{FINITE}] = 1; control[{MULTIPLIER}] = 1 / scale;
    """
    return cupy.ElementwiseKernel("float32 growth_interval", "raw float32 control", code, "xpnet_adjust_loss_scale")
