"""Describe the machine and software that figures belong to, and run without OpenBLAS settings."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

from backend.devices import describe_blas, describe_cpu

OPENBLAS_SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""These override OpenBLAS's CPU detection."""
_UNSET = "XPNET_BENCH_UNSET"


def restart_without_openblas_settings() -> None:
    """Start this process anew, once, without ``OPENBLAS_SETTINGS``: OpenBLAS reads them when it is loaded.

    Their names are kept for ``describe``.
    """
    given = {name: os.environ.pop(name) for name in OPENBLAS_SETTINGS if name in os.environ}
    if given:
        os.environ[_UNSET] = " ".join(f"{name}={value}" for name, value in given.items())
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def describe(sides: list[str]) -> dict[str, Any]:
    """Return processor, cores, BLAS and versions, for JSON."""
    from bench.timing import waited

    return {
        "processor": describe_cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "blas": describe_blas(),
        "unset": os.environ.get(_UNSET, ""),
        "sees_pressure": waited() is not None,
        "versions": {"python": platform.python_version(), **_versions(["numpy", *sides])},
    }


def _versions(packages: list[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # the textbook layers, or xpnet from its source
            continue
    return found
