"""TF32, by name and never silently: matrix products of float32 whose operands are rounded to 10 bits of fraction.

GPUs from compute capability 8.0 on multiply so on tensor cores, many times faster than in float32 proper. Sums stay
float32; a product's relative error grows from 6e-8 to 5e-4. CuPy would take ``CUPY_TF32=1`` from the environment; under
xpnet that alone does nothing.
"""

from __future__ import annotations

from typing import Any

from backend.devices import Device, DeviceError

_allowed = False


def allow(allowed: bool, device: Device) -> None:
    """Sets it for the process, ``device`` being the active one.

    Raises:
        DeviceError: it is asked for and the device has no TF32; nothing was changed.
    """
    global _allowed
    if allowed and not _has(device):
        raise DeviceError(f"TF32 needs a CUDA GPU of compute capability 8.0 or higher; the active device is {device}")
    _allowed = allowed
    apply(device)


def apply(device: Device) -> None:
    """Makes CuPy's products on a CUDA device what was asked for; called when the device becomes the active one."""
    if device.kind == "cuda":
        from cupy import _core

        kinds: Any = _core._routines_linalg
        wanted = kinds.COMPUTE_TYPE_TF32 if _allowed and _has(device) else kinds.COMPUTE_TYPE_DEFAULT
        _core.set_compute_type("float32", wanted)


def _has(device: Device) -> bool:
    if device.kind != "cuda":
        return False
    import cupy

    return int(cupy.cuda.Device(device.index).compute_capability) >= 80
