"""Detect usable devices; if CUDA is unusable, report the reason and the command that fixes it.

A CuPy that can be imported does not mean a usable GPU: CuPy 14 imports without a driver and fails at the first array.
Therefore the device is tested step by step, and the first step that fails is reported.
"""

import importlib
import importlib.util
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backend import checks, cuda_faults


class DeviceError(RuntimeError):
    """The requested device cannot be used; the message says what is missing and the remedy."""


@dataclass(frozen=True)
class Device:
    """A device to compute on: ``kind`` is ``"cpu"`` or ``"cuda"``, ``index`` counts the GPUs from 0."""

    kind: str
    index: int = 0

    @property
    def name(self) -> str:
        """The name for ``backend.use``: ``"cpu"``, ``"cuda:0"``, ``"cuda:1"``, …"""
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Gpu:
    """One CUDA device as the driver describes it.

    ``memory`` is its size in bytes, ``bandwidth`` its peak rate in bytes a second, from the clock and width of its
    memory bus; 0 if the driver does not report these.
    """

    index: int
    model: str
    compute_capability: str
    memory: int
    bandwidth: float = 0.0


@dataclass(frozen=True)
class CudaReport:
    """The result of ``inspect_cuda``. ``problem`` is empty if a GPU is usable; else ``remedy`` fixes it."""

    gpus: tuple[Gpu, ...] = field(default=())
    cupy_version: str = ""
    problem: str = ""
    remedy: str = ""

    @property
    def usable(self) -> bool:
        """True if arrays can be made and kernels compiled on the first GPU."""
        return not self.problem

    def __str__(self) -> str:
        return f"{self.problem}; remedy: {self.remedy}" if self.problem else f"{len(self.gpus)} CUDA device(s)"


NAMES = "'auto', 'cpu', 'cuda', 'cuda:<index>' or a Device"
"""The forms of a device's name, for error messages."""

_begun_by = 0
"""The process that first used CUDA and found a GPU; 0 before."""


def lost_in_fork() -> bool:
    """Return whether the parent process of this fork had used CUDA, which makes it unusable here."""
    return _begun_by not in (0, os.getpid())


def parse(name: str) -> Device:
    """Return the device that ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"`` names.

    Raises:
        ValueError: the name is another one.
    """
    kind, _, index = str(name).partition(":")
    if name == "cpu":
        return Device("cpu")
    if kind == "cuda" and (name == "cuda" or (index.isascii() and index.isdigit())):
        return Device("cuda", int(index or 0))
    raise checks.refusal(ValueError, "device", NAMES, name)


def inspect_cuda() -> CudaReport:
    """Test CuPy, the driver, the devices and the compiler, up to the first that fails.

    The result is not cached, so that the next call sees a repaired driver. The compiler's test is one small kernel on
    the current GPU (about 0.1 s the first time on a machine; CuPy caches it).
    """
    global _begun_by
    if lost_in_fork():
        return _unusable(cuda_faults.forked())
    if importlib.util.find_spec("cupy") is None:
        return _unusable(cuda_faults.not_installed())
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:  # a broken installation fails in many ways: report each as the reason
        return _unusable(cuda_faults.not_imported(error))
    if not hasattr(cupy, "__version__"):
        return _unusable(cuda_faults.not_cupy(cupy))
    version = cupy.__version__
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        return _unusable(cuda_faults.no_devices(cupy, error), version)
    _begun_by = os.getpid() if count else 0
    if count == 0:
        return _unusable(cuda_faults.no_devices(cupy, None), version)
    gpus: tuple[Gpu, ...] = ()
    try:
        gpus = tuple(_describe(runtime, index) for index in range(count))
        cupy.arange(2).sum().item()
    except Exception as error:
        capability = gpus[0].compute_capability if gpus else ""
        return _unusable(cuda_faults.no_kernels(cupy, error, capability), version)
    return CudaReport(gpus=gpus, cupy_version=version)


def _unusable(fault: cuda_faults.Fault, version: str = "") -> CudaReport:
    problem, remedy = fault
    return CudaReport(cupy_version=version, problem=problem, remedy=remedy)


def _describe(runtime: Any, index: int) -> Gpu:
    properties = runtime.getDeviceProperties(index)
    capability = f"{properties['major']}.{properties['minor']}"
    kilohertz, bits = (properties.get(name, 0) for name in ("memoryClockRate", "memoryBusWidth"))
    bandwidth = 2 * 1e3 * kilohertz * bits / 8  # two transfers a clock
    return Gpu(index, properties["name"].decode(), capability, properties["totalGlobalMem"], bandwidth)


def describe() -> dict[str, Any]:
    """Return the CPU with its threads and BLAS, and the reports on CUDA, MPI and NCCL, ready for JSON.

    Raises:
        ValueError: the environment asks for an impossible number of threads.
    """
    import backend  # only now: it imports this module
    from backend import collectives  # likewise

    cpu = {
        "model": describe_cpu(),
        "cores": os.cpu_count(),
        "threads": backend.threads.limit(),
        "blas": describe_blas(),
    }
    cuda = backend.inspect_cuda()
    mpi, nccl = collectives.inspect_mpi(), collectives.inspect_nccl(cuda)
    return {"cpu": cpu, "cuda": asdict(cuda), "mpi": asdict(mpi), "nccl": asdict(nccl)}


def describe_blas() -> list[dict[str, Any]]:
    """Return name, version, kernels and threads of the BLAS libraries in this process."""
    import numpy  # noqa: F401  (brings its BLAS)
    from threadpoolctl import threadpool_info

    return [
        {
            "name": library["internal_api"],
            "version": library["version"],
            "architecture": library.get("architecture", "unknown architecture"),
            "threads": library["num_threads"],
        }
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]


def describe_cpu() -> str:
    """Return the model of the processor, as far as the system tells."""
    description = Path("/proc/cpuinfo")  # Linux; elsewhere Python knows a little
    lines = description.read_text(encoding="utf-8").splitlines() if description.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
