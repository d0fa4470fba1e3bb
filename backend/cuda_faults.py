"""Say why CUDA cannot be used, and the command that fixes it.

An error's own text names a symptom ("CUDA driver version is insufficient" also appears without a driver), so the
driver, the environment and the installed packages are examined, too. Numbers are those of ``cudaError_t``.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

NO_DEVICE = 100  # cudaErrorNoDevice; CuPy has no name for it
INSUFFICIENT_DRIVER = 35

_PIP = f"{sys.executable} -m pip"
_OLDEST_DRIVER = {11: "450", 12: "525", 13: "580"}  # for Linux, by the release notes of CUDA
_COMPILER_IS_MISSING = (
    r"libnvrtc|nvrtc.*(?:not found|cannot open|failed to load)|(?:cannot|could not) open source file|CUDA headers"
)
_ARCHITECTURE_IS_UNKNOWN = r"invalid value for --gpu-architecture|gpu-architecture.*(?:unsupported|invalid)"

Fault = tuple[str, str]  # the problem, and the remedy

_BY_CODE: dict[int, Fault] = {
    2: ("the GPU's memory is full", "end a process that holds it: nvidia-smi lists them with their memory"),
    3: (
        "the driver did not start",
        "in a process forked after CUDA was used, fork before or start it by 'spawn'; else sudo nvidia-modprobe -u, or "
        "reboot",
    ),
    46: (
        "the GPU is taken by another process",
        "end that process (nvidia-smi lists it), or let several share the GPU: sudo nvidia-smi -c DEFAULT",
    ),
    802: ("the GPUs' fabric is not up", "sudo systemctl start nvidia-fabricmanager, and wait until it has started"),
    803: (
        "NVIDIA's driver and its kernel module are of two versions",
        "reboot: a driver that was updated needs it",
    ),
    804: (
        "CUDA's compatibility libraries do not support this GPU",
        "take the folder cuda-compat out of LD_LIBRARY_PATH (or uninstall the package), or update NVIDIA's driver",
    ),
    999: ("the driver failed", "sudo nvidia-modprobe -u, or reboot; dmesg says more"),
}


def forked() -> Fault:
    """Return the fault of a process that was forked from one that had used CUDA."""
    return (
        "this process was forked from one that had used CUDA, whose state no fork takes over",
        "start it by multiprocessing.get_context('spawn'), or fork before the first use of CUDA",
    )


def not_installed() -> Fault:
    """Return the fault of a missing CuPy."""
    return "CuPy is not installed", _install()


def not_imported(error: Exception) -> Fault:
    """Return the fault after importing CuPy raised ``error``."""
    return _with_packages(f"CuPy does not import ({first_line(error)})", _install("--force-reinstall "))


def not_cupy(module: Any) -> Fault:
    """Return the fault if the imported cupy is something else: a folder of that name, or the rest of an uninstalled
    one."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    place = next((str(place) for place in places if place), "?")
    return f"the module cupy is not CuPy ({place})", f"rename or remove {place}, and {_install()}"


def no_devices(cupy: Any, error: Exception | None) -> Fault:
    """Return the fault after counting devices raised ``error``, or (None) found none."""
    code = getattr(error, "status", NO_DEVICE if error is None else None)
    if code == NO_DEVICE or error is None:
        return _nothing_visible()
    if code in _BY_CODE:
        return _by_code(code, error)
    driver, runtime = _versions(cupy)
    if code == INSUFFICIENT_DRIVER and (0 < driver < runtime or (driver and not runtime)):
        return _driver_too_old(cupy, driver, runtime)
    return _with_packages(
        f"no usable NVIDIA driver ({first_line(error)})",
        "install NVIDIA's driver (on Ubuntu: sudo ubuntu-drivers install) until nvidia-smi lists the GPU; a container "
        "gets the machine's: docker run --gpus all",
    )


def no_kernels(cupy: Any, error: Exception, capability: str = "") -> Fault:
    """Return the fault after a small kernel raised ``error`` on a GPU of a compute capability ("" if unknown)."""
    code, text = getattr(error, "status", None), str(error)
    if isinstance(error, MemoryError):
        code = 2
    if code in _BY_CODE:
        return _by_code(code, error)
    problem = f"kernels cannot be built or run ({first_line(error)})"
    driver, runtime = _versions(cupy)
    if code in (INSUFFICIENT_DRIVER, 36, 218, 222) and 0 < driver < runtime:  # 218, 222: PTX of a newer compiler
        return _driver_too_old(cupy, driver, runtime)
    if code == 209 or re.search(_ARCHITECTURE_IS_UNKNOWN, text):
        gpu = f"a GPU of compute capability {capability}" if capability else "this GPU"
        older = f"{_replace('cupy-cuda12x')}, since CUDA 12 supports GPUs from 5.0 on; or " if runtime >= 13000 else ""
        return f"{problem}: CUDA {_dotted(runtime)} does not support {gpu}", f"{older}compute on the CPU (device 'cpu')"
    compiler = f"{_install()}, which brings the compiler and its headers"
    if re.search(_COMPILER_IS_MISSING, text):
        return _with_packages(f"CUDA's compiler, NVRTC, or its headers are missing ({first_line(error)})", compiler)
    return _with_packages(problem, compiler)


def first_line(error: BaseException) -> str:
    """Return the class and first line of an error, or of its cause if its own text begins with a ruler."""
    lines = [line for line in str(error).strip().splitlines() if line.strip("=- \t")]
    if error.__cause__ is not None and str(error).strip().startswith("==="):
        return first_line(error.__cause__)
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _by_code(code: int, error: Exception) -> Fault:
    problem, remedy = _BY_CODE[code]
    return f"{problem} ({first_line(error)})", remedy


def _nothing_visible() -> Fault:
    problem, listed = "no CUDA device is visible", "`nvidia-smi -L` lists"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return (
            f"{problem}: the environment has CUDA_VISIBLE_DEVICES={visible!r}",
            f"unset CUDA_VISIBLE_DEVICES, or put numbers or UUIDs in it that {listed}",
        )
    return (
        problem,
        f"check that {listed} a GPU (CUDA_VISIBLE_DEVICES is not set and hides none); one in MIG mode needs an "
        "instance: sudo nvidia-smi mig -cgi 0 -C",
    )


def _driver_too_old(cupy: Any, driver: int, runtime: int) -> Fault:
    wheels, major = _packages(), runtime // 1000
    of = f" ({', '.join(wheels)})" if wheels else ""
    oldest = f" (version {_OLDEST_DRIVER[major]} or newer)" if major in _OLDEST_DRIVER else ""
    same = driver // 1000 == major
    needed = f"CUDA {_dotted(runtime) if same else major}" if runtime else "a newer CUDA"
    to = (
        f"one for {needed} or newer{'' if same else oldest}; nvidia-smi shows both versions"
        if runtime
        else "the newest"
    )
    remedy = f"update NVIDIA's driver to {to}"
    if driver // 1000 == 12 and major > 12:
        remedy += f"; or take the CuPy for this driver: {_replace('cupy-cuda12x')}"
    return (
        f"NVIDIA's driver is too old: it supports CUDA {_dotted(driver)}, and CuPy {cupy.__version__}{of} needs "
        f"{needed}",
        remedy,
    )


def _versions(cupy: Any) -> tuple[int, int]:
    """Return the newest CUDA version of the driver and that of CuPy, 12090 for 12.9; 0 for an unknown one."""
    versions = []
    for function in ("driverGetVersion", "runtimeGetVersion"):
        try:
            versions.append(int(getattr(cupy.cuda.runtime, function)()))
        except Exception:  # a broken driver fails in many ways; the text then lacks the version
            versions.append(0)
    return versions[0], versions[1]


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _packages() -> list[str]:
    """Return the names of the installed packages that provide a module cupy."""
    import importlib.metadata  # 20 ms, and needed only after an error

    names = {str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions() if found.metadata}
    return sorted(name for name in names if re.fullmatch(r"cupy(-cuda\w+|-rocm[-\w]+)?|amd-cupy", name))


def _with_packages(problem: str, remedy: str) -> Fault:
    """Return the fault, or that of several packages that have overwritten each other's files."""
    packages = _packages()
    if len(packages) < 2:
        return problem, remedy
    return f"{problem}; {' and '.join(packages)} are installed over each other", _replace()


def _install(options: str = "") -> str:
    """Return the command that installs CuPy with its dependencies: the installed package, or else one for the
    driver."""
    packages = [name for name in _packages() if re.fullmatch(r"cupy-cuda1[2-9]x", name)]
    if len(packages) == 1:
        return f"{_PIP} install {options}'{packages[0]}[ctk]'"
    return f"{_PIP} install {options}'cupy-cuda12x[ctk]' (for a CUDA 13 driver: 'cupy-cuda13x[ctk]')"


def _replace(package: str = "cupy-cuda12x") -> str:
    """Return the commands that replace all installed CuPy packages by one."""
    hint = " (for a CUDA 13 driver: 'cupy-cuda13x[ctk]')" if len(_packages()) > 1 else ""
    return f"{_PIP} uninstall -y {' '.join(_packages()) or 'cupy'}, then {_PIP} install '{package}[ctk]'{hint}"
