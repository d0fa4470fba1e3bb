"""TF32, by name and never silently: matrix products of float32 whose operands are rounded to 10 bits of fraction.

GPUs from compute capability 8.0 on multiply so on tensor cores, many times faster than in float32 proper. Sums stay
float32; a product's relative error grows from 6e-8 to 5e-4. CuPy would take ``CUPY_TF32=1`` from the environment; under
xpnet that alone does nothing.
"""

from __future__ import annotations

import os

from backend.devices import Device, DeviceError

_allowed = False


def allow(allowed: bool, device: Device) -> None:
    """Sets it for the process, ``device`` being the active one.

    Raises:
        DeviceError: it is asked for and the device has no TF32, or CuPy does not let it be chosen; nothing was changed.
    """
    global _allowed
    if allowed and not _has(device):
        raise DeviceError(f"TF32 needs a CUDA GPU of compute capability 8.0 or higher; the active device is {device}")
    before, _allowed = _allowed, allowed
    try:
        apply(device)
    except DeviceError:
        _allowed = before
        raise


def is_allowed() -> bool:
    """Return whether products of float32 may round their operands to TF32."""
    return _allowed


def apply(device: Device) -> None:
    """Makes CuPy's products on a CUDA device what was asked for; called when the device becomes the active one.

    Raises:
        DeviceError: CuPy does not let it be chosen, and without a choice products might not be what was asked for.
    """
    if device.kind != "cuda":
        return
    import cupy

    try:  # names of CuPy's own, that another version may not have
        choose, kinds = cupy._core.set_compute_type, cupy._core._routines_linalg
        float32, tf32 = kinds.COMPUTE_TYPE_DEFAULT, kinds.COMPUTE_TYPE_TF32
    except AttributeError as error:
        if not _allowed and os.environ.get("CUPY_TF32", "0") in ("", "0"):
            return  # float32 is what CuPy does by itself
        raise DeviceError(
            f"CuPy {cupy.__version__} does not let TF32 be allowed or forbidden: leave --precision tf32 and CUPY_TF32"
        ) from error
    choose("float32", tf32 if _allowed and _has(device) else float32)


def _has(device: Device) -> bool:
    if device.kind != "cuda":
        return False
    import cupy

    return int(cupy.cuda.Device(device.index).compute_capability) >= 80
