"""Select the active array library: ``xp`` forwards to it, ``use`` switches it.

One library is active in the process, not one per thread: a network's layers, its loader's thread and its optimizer
must agree. The first use of ``xp`` starts the device that ``XPNET_DEVICE`` names (default auto).
"""

from __future__ import annotations

import logging
import os
from types import ModuleType
from typing import Any

import numpy

from backend import checks, tf32
from backend.devices import NAMES, CudaReport, Device, DeviceError, inspect_cuda, lost_in_fork, parse

_log = logging.getLogger("xpnet")
_device: Device | None = None
_lost: Device | None = None
"""The CUDA device that was active in the process from which this one was forked, until another is selected."""
_fallback_said = False


class _Namespace(ModuleType):
    """The module proxy behind ``xp``. An attribute is looked up once, then kept until the next switch."""

    def __getattr__(self, name: str) -> Any:
        device = current_device()
        value = getattr(_module(device), name)
        self.__dict__[name] = value
        if device is not _device:  # another thread has switched: keep only names of the new library
            self.__dict__.pop(name, None)
        return value

    def __repr__(self) -> str:
        return f"<xp: {'numpy' if current_device().kind == 'cpu' else 'cupy'} on {current_device()}>"

    def __dir__(self) -> list[str]:
        return dir(_module(current_device()))


xp: Any = _Namespace("xp", "NumPy or CuPy, whichever is active.")
_OWN_NAMES = frozenset(vars(xp))


def current_device() -> Device:
    """Return the active device; activate the one that ``XPNET_DEVICE`` names (default ``auto``) if there is none yet.

    Raises:
        DeviceError: the process was forked from one in which a CUDA device was active, and has not selected another.
    """
    if _device is None:
        if _lost is not None:
            refuse_lost()
        use(os.environ.get("XPNET_DEVICE") or "auto")
    assert _device is not None
    return _device


class use:  # noqa: N801  (reads as a statement: `with use("cpu"):`)
    """Make a device the active one: ``use("cuda")``, or ``with use("cpu"): …`` to restore the old one at the end.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:<index>"`` or a ``Device``. Auto takes the
            first GPU that works and otherwise falls back to the CPU, logging why once per process.

    CuPy's current device is per thread: call ``use("cuda:1")`` in every thread that computes on it.

    Raises:
        DeviceError: a CUDA device was named and cannot be used; the message has the reason and the remedy.
        TypeError: ``device`` is neither a name nor a ``Device``.
        ValueError: the name is not one of the above.
    The active device does not change on an error.

    Examples:
        >>> from backend import use, xp
        >>> with use("cpu") as device:
        ...     print(device, xp.arange(3))
        cpu [0 1 2]
    """

    def __init__(self, device: str | Device = "auto") -> None:
        self._previous = _device
        _activate(_resolve(device))

    def __enter__(self) -> Device:
        return current_device()

    def __exit__(self, *exc_info: object) -> None:
        _activate(self._previous)


def allow_tf32(allowed: bool = True) -> None:
    """Allow or forbid that float32 matrix products on a GPU round their operands to TF32 (``backend.tf32``).

    Raises:
        DeviceError: the active device does not support TF32.
    """
    tf32.allow(checks.flag("allowed", allowed), current_device())


def refuse_lost() -> None:
    """Raise a DeviceError if this process was forked from one that had used CUDA."""
    if lost_in_fork():
        raise DeviceError(f"{_lost or 'cuda'} cannot be used: {inspect_cuda()}")


def _let_go_of_device() -> None:
    """Deactivate a CUDA device in a forked process."""
    global _device, _lost
    if _device is not None and _device.kind == "cuda":
        _lost = _device
        _activate(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_device)


def _resolve(device: str | Device) -> Device:
    global _fallback_said
    checks.instance("device", device, (str, Device), NAMES)
    if device == "auto":
        report = inspect_cuda()
        if report.usable:
            return Device("cuda")
        if not _fallback_said:
            _fallback_said = True
            _log.warning("xpnet runs on the CPU: %s (XPNET_DEVICE=cpu silences this)", report)
        return Device("cpu")
    wanted = device if isinstance(device, Device) else parse(device)
    if wanted.kind == "cuda" and wanted != _device:
        _require(wanted, inspect_cuda())
    return wanted


def _require(wanted: Device, report: CudaReport) -> None:
    if not report.usable:
        raise DeviceError(f"{wanted} cannot be used: {report}")
    if wanted.index >= len(report.gpus):
        found = ", ".join(f"cuda:{gpu.index} ({gpu.model})" for gpu in report.gpus)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (the environment has CUDA_VISIBLE_DEVICES={visible!r})"
        raise DeviceError(f"{wanted} does not exist; found {found}{hidden}")


def _activate(device: Device | None) -> None:
    global _device
    if device is not None and device.kind == "cuda":
        _module(device).cuda.Device(device.index).use()
        tf32.apply(device)
    _device = device
    kept = vars(xp)
    for name in [name for name in kept if name not in _OWN_NAMES]:
        del kept[name]


def _module(device: Device) -> Any:
    if device.kind == "cpu":
        return numpy
    import cupy

    return cupy
