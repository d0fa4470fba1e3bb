"""Dynamic loss scaling (Micikevicius et al. 2018, section 3.2), decided on the gradients' device: nothing is read back.

Gradients below 6e-8 vanish in float16. So the loss is multiplied by a scale before backward, and the gradients divided
by it in float32 afterwards. A scale that is too large shows as a gradient that is infinite or NaN: that step is skipped
and the scale halved; after enough steps without, it is doubled.

All that an update needs to know of it is one small array, the control, float32:
"""

from __future__ import annotations

import functools
from typing import Any

import numpy

from backend import array_module, profiling, require_same_device
from backend.types import Array
from kernels.core.dispatch import implementation
from kernels.core.native import Function

_FIND_OVERFLOW = Function("loss_scale.c", "find_overflow")

SCALE, FINITE, MULTIPLIER, GOOD, SKIPPED = range(5)
"""The places in a control: the scale, whether all gradients of this step were finite (1 or 0), the multiplier of the
gradients, finite steps since the scale last changed, and all steps skipped."""

LARGEST = 2.0**24
SMALLEST = 1 / LARGEST


def control(scale: float, library: Any) -> Array:
    """Return a control that starts with ``scale``, a power of two: multiplying by it is exact."""
    return library.asarray([scale, 1, 1 / scale, 0, 0], numpy.float32)


def restart(control: Array) -> None:
    """Prepare the control for a step after one that was interrupted; the scale and the counts stay."""
    control[FINITE] = 1
    control[MULTIPLIER] = 1 / control[SCALE]


@profiling.operation
def find_overflow(gradient: Array, control: Array) -> None:
    """Note in ``control`` if any number of ``gradient`` is infinite or NaN. The gradient is read once."""
    require_same_device(gradient, control)
    implementation(gradient, _find_overflow_numpy, _find_overflow_cuda, _find_overflow_native)(gradient, control)


def _find_overflow_numpy(gradient: Array, control: Array) -> None:
    if not numpy.isfinite(gradient).all():
        control[FINITE] = 0


def _find_overflow_native(gradient: Array, control: Array) -> None:
    _FIND_OVERFLOW(gradient.dtype, numpy.ascontiguousarray(gradient), control[FINITE:MULTIPLIER], gradient.size)


def _find_overflow_cuda(gradient: Array, control: Array) -> None:
    if gradient.size:
        _overflow_kernel()(gradient, control)


def limit_norm(norm: Array, max_norm: float, control: Array) -> None:
    """Let the multiplier scale gradients down to ``max_norm``, too, where ``norm`` exceeds it.

    Args:
        norm: global L2 norm of the scaled gradients: 0-d, on the device.
        max_norm: the largest norm allowed, without the scale.
    """
    require_same_device(norm, control)
    control[MULTIPLIER] = clip_factor(norm / control[SCALE], max_norm) / control[SCALE]


def clip_factor(norm: Array, max_norm: float) -> Array:
    """Return the multiplier of gradients of global L2 norm ``norm`` (0-d): exactly 1 up to ``max_norm``."""
    return max_norm / array_module(norm).maximum(norm, max_norm)


@profiling.operation
def adjust(control: Array, growth_interval: int) -> None:
    """End a step: move the scale, count, and prepare the control for the next step."""
    implementation(control, _adjust_numpy, _adjust_cuda)(control, growth_interval)


def _adjust_numpy(control: Array, growth_interval: int) -> None:
    if control[FINITE]:
        control[GOOD] += 1
        if control[GOOD] >= growth_interval:
            control[SCALE], control[GOOD] = min(control[SCALE] * 2, LARGEST), 0
    else:
        control[SCALE], control[GOOD] = max(control[SCALE] / 2, SMALLEST), 0
        control[SKIPPED] += 1
    control[FINITE], control[MULTIPLIER] = 1, 1 / control[SCALE]


def _adjust_cuda(control: Array, growth_interval: int) -> None:
    _adjust_kernel()(growth_interval, control, size=1)


@functools.cache
def _overflow_kernel() -> Any:
    import cupy

    # Infinity and NaN less themselves are NaN. Whichever threads write, they write the same, in any order.
    code = f"if (!(gradient - gradient == 0)) control[{FINITE}] = 0;"
    return cupy.ElementwiseKernel("T gradient", "raw float32 control", code, "xpnet_find_overflow")


@functools.cache
def _adjust_kernel() -> Any:
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
