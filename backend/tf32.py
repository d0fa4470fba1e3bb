"""Allow TF32 explicitly: matrix products of float32 whose operands are rounded to 10 bits of fraction.

GPUs from compute capability 8.0 on multiply TF32 on tensor cores, many times faster than float32. Sums stay float32; a
product's relative error grows from 6e-8 to 5e-4. xpnet ignores ``CUPY_TF32=1`` in the environment, which CuPy obeys.
"""

from __future__ import annotations

import os

from backend.devices import Device, DeviceError

_allowed = False


def allow(allowed: bool, device: Device) -> None:
    """Set it for the process; ``device`` is the active one.

    Raises:
        DeviceError: the device does not support TF32, or CuPy cannot set it; nothing is changed.
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
    """Apply the TF32 setting to CuPy's matrix products. Called whenever a CUDA device is activated.

    Raises:
        DeviceError: CuPy cannot set it, and its default may differ from the setting.
    """
    if device.kind != "cuda":
        return
    import cupy

    try:  # private names of CuPy, which another version may lack
        choose, kinds = cupy._core.set_compute_type, cupy._core._routines_linalg
        float32, tf32 = kinds.COMPUTE_TYPE_DEFAULT, kinds.COMPUTE_TYPE_TF32
    except AttributeError as error:
        if not _allowed and os.environ.get("CUPY_TF32", "0") in ("", "0"):
            return  # float32 is CuPy's default
        raise DeviceError(
            f"CuPy {cupy.__version__} does not let TF32 be allowed or forbidden: leave --precision tf32 and CUPY_TF32"
        ) from error
    choose("float32", tf32 if _allowed and _has(device) else float32)


def _has(device: Device) -> bool:
    if device.kind != "cuda":
        return False
    import cupy

    return int(cupy.cuda.Device(device.index).compute_capability) >= 80
