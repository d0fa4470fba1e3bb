"""Detect the devices of this machine, and of simulated ones that lack something."""

import importlib
import importlib.util
from types import SimpleNamespace

import pytest

from backend import CudaReport, Device, DeviceError, inspect_cuda, use
from backend.devices import Gpu, parse


class FakeRuntimeError(Exception):
    """As CuPy's CUDARuntimeError: an exception with a status."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


NO_DEVICE = 100  # cudaErrorNoDevice


def cupy_with(count=1, sum_of=None, **memory):
    """A stand-in for CuPy of which one part may fail: a number, or the exception it raises."""

    def answer(value):
        if isinstance(value, Exception):
            raise value
        return value

    properties = {"major": 9, "minor": 0, "name": b"Model T", "totalGlobalMem": 123, **memory}
    # As in CuPy, whose runtime module has no names for the error codes.
    runtime = SimpleNamespace(getDeviceCount=lambda: answer(count), getDeviceProperties=lambda index: properties)
    array = SimpleNamespace(sum=lambda: SimpleNamespace(item=lambda: answer(sum_of)))
    return SimpleNamespace(__version__="14.2.0", cuda=SimpleNamespace(runtime=runtime), arange=lambda size: array)


@pytest.fixture
def install(monkeypatch):
    """Makes a stand-in the CuPy that is found and imported; an exception is what importing it raises."""

    def install(cupy):
        find_spec, import_module = importlib.util.find_spec, importlib.import_module

        def find(name, *rest):
            return object() if name == "cupy" else find_spec(name, *rest)

        def load(name, *rest):
            if name != "cupy":
                return import_module(name, *rest)
            if isinstance(cupy, Exception):
                raise cupy
            return cupy

        monkeypatch.setattr(importlib.util, "find_spec", find)
        monkeypatch.setattr(importlib, "import_module", load)

    return install


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("cpu", Device("cpu")),
        ("cuda", Device("cuda", 0)),
        ("cuda:0", Device("cuda", 0)),
        ("cuda:12", Device("cuda", 12)),
    ],
)
def test_names(name, device):
    assert parse(name) == device
    assert parse(device.name) == device
    assert str(device) == device.name


@pytest.mark.parametrize(
    "name", ["", "auto", "gpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:٣", "Cuda"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="'cuda:<index>' or a Device, got") as error:
        parse(name)
    assert repr(name) in str(error.value)


def test_this_machine():
    report = inspect_cuda()
    if importlib.util.find_spec("cupy") is None:
        assert report == CudaReport(problem="CuPy is not installed", remedy=report.remedy)
        assert "-m pip install 'cupy-cuda12x[ctk]'" in report.remedy
    elif report.usable:
        assert report.gpus[0].index == 0
        assert report.gpus[0].memory > 0
        assert report.cupy_version == importlib.import_module("cupy").__version__
        assert str(report) == f"{len(report.gpus)} CUDA device(s)"
    else:
        assert report.cupy_version == importlib.import_module("cupy").__version__
        assert any(part in report.problem for part in ("driver", "no CUDA device", "kernels cannot be built"))
        assert str(report) == f"{report.problem}; remedy: {report.remedy}"
    assert report.usable == (not report.problem) == (not report.remedy) == bool(report.gpus)


def test_this_machine_without_a_usable_gpu_refuses_cuda_and_takes_auto():
    report = inspect_cuda()
    if report.usable:
        with use("cuda") as device:
            assert device == Device("cuda", 0)
        return
    with pytest.raises(DeviceError) as error:
        use("cuda")
    assert str(error.value) == f"cuda:0 cannot be used: {report}"
    with use("auto") as device:
        assert device == Device("cpu")


def test_a_cupy_that_is_not_there(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    report = inspect_cuda()
    assert not report.usable
    assert report.problem == "CuPy is not installed"


@pytest.mark.parametrize(
    ("cupy", "problem", "remedy"),
    [
        (
            ImportError("libcudart.so.12: cannot open\nshared object"),
            "CuPy does not import (ImportError: libcudart.so.12: cannot open)",
            "-m pip install --force-reinstall 'cupy-cuda12x[ctk]'",
        ),
        (
            cupy_with(count=FakeRuntimeError(35, "cudaErrorInsufficientDriver: driver is insufficient")),
            "no usable NVIDIA driver (FakeRuntimeError: cudaErrorInsufficientDriver: driver is insufficient)",
            "nvidia-smi",
        ),
        (cupy_with(count=FakeRuntimeError(NO_DEVICE, "none")), "no CUDA device is visible", "CUDA_VISIBLE_DEVICES"),
        (cupy_with(count=0), "no CUDA device is visible", "CUDA_VISIBLE_DEVICES"),
        (
            cupy_with(sum_of=RuntimeError("")),
            "kernels cannot be built or run (RuntimeError)",
            "pip install 'cupy-cuda12x[ctk]'",
        ),
    ],
)
def test_the_first_step_that_fails_is_the_reason(install, cupy, problem, remedy):
    install(cupy)
    report = inspect_cuda()
    assert not report.usable
    assert report.gpus == ()
    assert report.problem == problem
    assert remedy in report.remedy
    assert str(report) == f"{problem}; remedy: {report.remedy}"
    assert report.cupy_version == ("" if isinstance(cupy, ImportError) else "14.2.0")
    with pytest.raises(DeviceError, match="cuda:0 cannot be used"):
        use("cuda")


def test_the_bandwidth_is_that_of_the_memory_s_clock_and_bus(install):
    install(cupy_with(sum_of=1, memoryClockRate=2_619_000, memoryBusWidth=5120))  # an H100's: kHz, bits
    assert inspect_cuda().gpus[0].bandwidth == pytest.approx(3352e9, rel=1e-3)
    install(cupy_with(sum_of=1))  # CUDA 13 does not tell
    assert inspect_cuda().gpus[0].bandwidth == 0


def test_gpus_that_work_are_described(install):
    install(cupy_with(count=2, sum_of=1))
    report = inspect_cuda()
    assert report.usable
    assert report.gpus == (Gpu(0, "Model T", "9.0", 123), Gpu(1, "Model T", "9.0", 123))
    assert str(report) == "2 CUDA device(s)"


def test_the_answer_is_not_remembered(install):
    install(cupy_with(count=0))
    assert not inspect_cuda().usable
    install(cupy_with(sum_of=1))
    assert inspect_cuda().usable
