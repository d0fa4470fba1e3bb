"""Each way in which CUDA fails to work says what is wrong, with what was found, and the command that fixes it."""

import importlib
import importlib.metadata
import importlib.util
from types import SimpleNamespace

import pytest

from backend import DeviceError, inspect_cuda, use


class FakeRuntimeError(RuntimeError):
    """As CuPy's CUDARuntimeError: an exception with a status."""

    def __init__(self, status, text="said CUDA"):
        super().__init__(text)
        self.status = status


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


def cupy_with(count=1, kernel=None, driver=12090, built_for=12090, capability=(9, 0)):
    """A stand-in for CuPy of which one part may fail: a number, or the exception it raises."""

    def answer(value):
        if isinstance(value, Exception):
            raise value
        return value

    properties = {
        "major": capability[0],
        "minor": capability[1],
        "name": b"Model T",
        "totalGlobalMem": 123,
    }
    runtime = SimpleNamespace(
        getDeviceCount=lambda: answer(count),
        getDeviceProperties=lambda index: properties,
        driverGetVersion=lambda: answer(driver),
        runtimeGetVersion=lambda: answer(built_for),
    )
    array = SimpleNamespace(sum=lambda: SimpleNamespace(item=lambda: answer(kernel)))
    return SimpleNamespace(__version__="14.2.0", cuda=SimpleNamespace(runtime=runtime), arange=lambda size: array)


@pytest.fixture
def install(monkeypatch):
    """Makes a stand-in the CuPy that is found and imported (an exception is what importing it raises), of packages."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(cupy, *packages):
        find_spec, import_module = importlib.util.find_spec, importlib.import_module

        def load(name, *rest):
            if name != "cupy":
                return import_module(name, *rest)
            if isinstance(cupy, Exception):
                raise cupy
            return cupy

        found = [SimpleNamespace(metadata={"Name": name}) for name in ("numpy", *packages)]
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name == "cupy" or find_spec(name, *rest))
        monkeypatch.setattr(importlib, "import_module", load)
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: iter(found))

    return install


def fault():
    """Problem and remedy that are reported; ``use`` says the same."""
    report = inspect_cuda()
    assert not report.usable
    assert report.gpus == ()
    with pytest.raises(DeviceError) as error:
        use("cuda")
    assert str(error.value) == f"cuda:0 cannot be used: {report.problem}; remedy: {report.remedy}"
    assert "\n" not in str(report)
    return report.problem, report.remedy


INSUFFICIENT = FakeRuntimeError(35, "cudaErrorInsufficientDriver: driver version is insufficient for runtime version")


@pytest.mark.parametrize(
    ("driver", "built_for", "package", "problem", "update"),
    [
        (11040, 12090, "cupy-cuda12x", "supports CUDA 11.4, and CuPy 14.2.0 (cupy-cuda12x) needs CUDA 12", "525"),
        (11080, 13000, "cupy-cuda13x", "supports CUDA 11.8, and CuPy 14.2.0 (cupy-cuda13x) needs CUDA 13", "580"),
        (12040, 13000, "cupy-cuda13x", "supports CUDA 12.4, and CuPy 14.2.0 (cupy-cuda13x) needs CUDA 13", "580"),
    ],
)
def test_a_driver_that_is_too_old(install, driver, built_for, package, problem, update):
    install(cupy_with(INSUFFICIENT, driver=driver, built_for=built_for), package)
    said, remedy = fault()
    assert said == f"NVIDIA's driver is too old: it {problem}"
    assert remedy.startswith(f"update NVIDIA's driver to one for CUDA {built_for // 1000} or newer (version {update}")
    assert "install NVIDIA's driver" not in remedy
    # A driver for CUDA 12 has a CuPy of its own.
    assert ("uninstall -y cupy-cuda13x, then" in remedy and "'cupy-cuda12x[ctk]'" in remedy) == (driver == 12040)


def test_a_driver_that_is_too_old_for_a_cupy_of_unknown_version(install):
    install(cupy_with(INSUFFICIENT, driver=11040, built_for=RuntimeError("?")))
    problem, remedy = fault()
    assert problem == "NVIDIA's driver is too old: it supports CUDA 11.4, and CuPy 14.2.0 needs a newer CUDA"
    assert remedy == "update NVIDIA's driver to the newest"


@pytest.mark.parametrize("driver", [0, RuntimeError("cudaErrorStubLibrary"), 13000])
def test_no_driver(install, driver):
    """Or one that is new enough, and does not work all the same."""
    install(cupy_with(INSUFFICIENT, driver=driver))
    problem, remedy = fault()
    assert problem.startswith("no usable NVIDIA driver (FakeRuntimeError: cudaErrorInsufficientDriver")
    assert remedy.startswith("install NVIDIA's driver (on Ubuntu: sudo ubuntu-drivers install)")
    assert "--gpus all" in remedy


def test_a_driver_older_than_the_compiler(install):
    install(cupy_with(kernel=FakeRuntimeError(222, "cudaErrorUnsupportedPtxVersion"), driver=12020))
    problem, remedy = fault()
    assert "it supports CUDA 12.2, and CuPy 14.2.0 needs CUDA 12.9" in problem
    assert remedy == "update NVIDIA's driver to one for CUDA 12.9 or newer; nvidia-smi shows both versions"


@pytest.mark.parametrize(
    ("code", "problem", "remedy"),
    [
        (2, "memory is full", "nvidia-smi lists"),
        (3, "did not start", "'spawn'"),
        (46, "taken by another process", "nvidia-smi -c DEFAULT"),
        (802, "fabric is not up", "nvidia-fabricmanager"),
        (803, "are of two versions", "reboot"),
        (804, "do not support this GPU", "LD_LIBRARY_PATH"),
        (999, "the driver failed", "reboot"),
    ],
)
@pytest.mark.parametrize("where", ["count", "kernel"])
def test_errors_of_cuda(install, where, code, problem, remedy):
    install(cupy_with(**{where: FakeRuntimeError(code)}))
    said, mends = fault()
    assert problem in said
    assert "(FakeRuntimeError: said CUDA)" in said
    assert remedy in mends


def test_a_full_memory_is_not_a_missing_compiler(install):
    install(cupy_with(kernel=OutOfMemoryError("Out of memory allocating 512 bytes")))
    problem, remedy = fault()
    assert problem == "the GPU's memory is full (OutOfMemoryError: Out of memory allocating 512 bytes)"
    assert "pip" not in remedy


@pytest.mark.parametrize("visible", ["", "-1", "7", "GPU-0123", "MIG-0123"])
@pytest.mark.parametrize("count", [0, FakeRuntimeError(100)], ids=["none", "no device"])
def test_devices_that_the_environment_hides(install, monkeypatch, visible, count):
    install(cupy_with(count))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    problem, remedy = fault()
    assert problem == f"no CUDA device is visible: the environment has CUDA_VISIBLE_DEVICES={visible!r}"
    assert remedy.startswith("unset CUDA_VISIBLE_DEVICES")


def test_no_device_though_none_is_hidden(install):
    install(cupy_with(FakeRuntimeError(100)))
    problem, remedy = fault()
    assert problem == "no CUDA device is visible"
    assert "CUDA_VISIBLE_DEVICES is not set" in remedy
    assert "MIG mode" in remedy


def test_a_number_too_high_says_what_the_environment_hides(install, monkeypatch):
    install(cupy_with())
    for visible, words in ((None, r"\(Model T\)$"), ("1", r"\(the environment has CUDA_VISIBLE_DEVICES='1'\)$")):
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(DeviceError, match=rf"cuda:1 does not exist; found cuda:0 .*{words}"):
            use("cuda:1")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CuPy failed to load libnvrtc.so.13: OSError: libnvrtc.so.13: cannot open shared object file"),
        RuntimeError('Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: libnvrtc.so.13'),  # CuPy 14.2
        RuntimeError('x.cu(1): catastrophic error: could not open source file "cuda_fp16.h" (no directories …)'),
        RuntimeError("Failed to find CUDA headers"),
        RuntimeError('x.cu(1): catastrophic error: cannot open source file "cuda_fp16.h"'),
    ],
)
def test_no_compiler_names_the_package_that_is_there(install, error):
    install(cupy_with(kernel=error, driver=13000, built_for=13000), "cupy-cuda13x")
    problem, remedy = fault()
    assert problem.startswith("CUDA's compiler, NVRTC, or its headers are missing (RuntimeError: ")
    assert remedy.endswith("-m pip install 'cupy-cuda13x[ctk]', which brings the compiler and its headers")


@pytest.mark.parametrize(
    ("error", "built_for", "package", "mends"),
    [
        (RuntimeError("nvrtc: error: invalid value for --gpu-architecture (-arch)"), 13000, "cupy-cuda13x", True),
        (FakeRuntimeError(209), 13000, "cupy-cuda13x", True),
        (FakeRuntimeError(209), 12090, "cupy-cuda12x", False),
    ],
)
def test_a_gpu_that_the_cuda_does_not_know(install, error, built_for, package, mends):
    install(cupy_with(kernel=error, driver=13000, built_for=built_for, capability=(6, 1)), package)
    problem, remedy = fault()
    assert (
        f"CUDA {built_for // 1000}.{built_for % 1000 // 10} does not support a GPU of compute capability 6.1" in problem
    )
    assert ("uninstall -y cupy-cuda13x, then" in remedy and "install 'cupy-cuda12x[ctk]'" in remedy) == mends
    assert remedy.endswith("compute on the CPU (device 'cpu')")


def test_a_kernel_that_fails_otherwise(install):
    install(cupy_with(kernel=RuntimeError("odd")), "cupy-cuda12x")
    problem, remedy = fault()
    assert problem == "kernels cannot be built or run (RuntimeError: odd)"
    assert "pip install 'cupy-cuda12x[ctk]'" in remedy


@pytest.mark.parametrize(
    "cupy",
    [
        ImportError("undefined symbol"),
        cupy_with(INSUFFICIENT, driver=0),
        cupy_with(kernel=RuntimeError("libnvrtc.so.12")),
        cupy_with(kernel=RuntimeError("odd")),
    ],
    ids=["import", "driver", "compiler", "kernel"],
)
def test_packages_that_overwrite_each_other(install, cupy):
    install(cupy, "cupy-cuda12x", "cupy-cuda13x", "cupyter")
    problem, remedy = fault()
    assert problem.endswith("; cupy-cuda12x and cupy-cuda13x are installed over each other")
    assert "uninstall -y cupy-cuda12x cupy-cuda13x, then" in remedy


def test_an_import_that_fails_tells_its_cause_and_no_ruler(install):
    cause = ImportError("libcudart.so.12: cannot open shared object file")
    error = ImportError("\n================\nFailed to import CuPy.\n\nOriginal error: …\n================\n")
    error.__cause__ = cause
    install(error, "cupy-cuda12x")
    problem, remedy = fault()
    assert problem == f"CuPy does not import (ImportError: {cause})"
    assert remedy.endswith("-m pip install --force-reinstall 'cupy-cuda12x[ctk]'")


@pytest.mark.parametrize("place", ["__file__", "__path__"])
def test_a_module_that_is_not_cupy(install, place):
    """A file or a folder of that name in front of it: there is no version, and nothing else either."""
    install(SimpleNamespace(**{place: "/x/cupy.py" if place == "__file__" else ["/x/cupy.py"]}))
    problem, remedy = fault()
    assert problem == "the module cupy is not CuPy (/x/cupy.py)"
    assert remedy.startswith("rename or remove /x/cupy.py, and ")
