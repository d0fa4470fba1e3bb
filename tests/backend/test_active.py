"""The active library: what ``xp`` forwards to, and how ``use`` switches it and switches back."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

import backend
from backend import Device, DeviceError, active, current_device, use, xp
from backend.devices import CudaReport, Gpu

NO_GPU = CudaReport(problem="the bus is late", remedy="walk")
ONE_GPU = CudaReport(gpus=(Gpu(0, "Model T", "9.0", 1 << 30),))


def test_xp_is_the_library_of_the_device(device):
    assert xp.zeros is backend.array_module(xp.zeros(1)).zeros
    assert repr(xp) == f"<xp: {'numpy' if device.kind == 'cpu' else 'cupy'} on {device}>"
    assert "einsum" in dir(xp)


def test_xp_has_every_kind_of_attribute():
    with use("cpu"):
        assert xp.float32 is np.float32
        assert xp.pi == np.pi
        assert xp.linalg.norm is np.linalg.norm
        assert xp.__version__ == np.__version__


def test_a_name_that_the_library_lacks_is_an_attribute_error(device):
    with pytest.raises(AttributeError, match="no_such_function"):
        _ = xp.no_such_function


def test_a_name_is_looked_up_once_until_the_next_switch(monkeypatch):
    with use("cpu"):
        monkeypatch.setattr(np, "just_for_this_test", 1, raising=False)
        assert xp.just_for_this_test == 1
        monkeypatch.setattr(np, "just_for_this_test", 2)
        assert xp.just_for_this_test == 1
        use("cpu")
        assert xp.just_for_this_test == 2


def test_use_as_a_call_stays_and_as_a_block_goes_back():
    with use("cpu") as outer:
        assert outer == current_device() == Device("cpu")
        with use(Device("cpu")) as inner:
            assert inner == Device("cpu")
        with pytest.raises(KeyError), use("cpu"):
            raise KeyError
        assert current_device() == outer
        use("cpu")
        assert current_device() == outer


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two GPUs, as far as switching goes; returns the devices that were made CuPy's own, in order."""
    switched = []
    library = SimpleNamespace(
        zeros="zeros of the GPU",
        cuda=SimpleNamespace(Device=lambda index: SimpleNamespace(use=lambda: switched.append(index))),
    )
    module = active._module
    report = CudaReport(gpus=(Gpu(0, "Model T", "9.0", 1 << 30), Gpu(1, "Model A", "9.0", 1 << 30)))
    monkeypatch.setattr(active, "inspect_cuda", lambda: report)
    monkeypatch.setattr(active.tf32, "apply", lambda _: None)
    monkeypatch.setattr(active, "_module", lambda device: module(device) if device.kind == "cpu" else library)
    return switched


def test_blocks_go_back_to_the_device_before(two_gpus):
    with use("cpu"):
        with use("cuda:1") as outer:
            assert (outer, xp.zeros) == (Device("cuda", 1), "zeros of the GPU")
            with use("cpu"):
                assert xp.zeros is np.zeros
            assert (current_device(), xp.zeros) == (outer, "zeros of the GPU")
            with pytest.raises(KeyError), use("cuda"):
                raise KeyError
            assert (current_device(), xp.zeros) == (outer, "zeros of the GPU")
            with pytest.raises(ValueError, match="nonsense"):
                use("nonsense")
            assert current_device() == outer
        assert xp.zeros is np.zeros
    assert two_gpus == [1, 1, 0, 1], "each switch to a GPU has to make it CuPy's current one"


def test_auto_takes_the_first_gpu(two_gpus):
    with use("cpu"), use("auto") as device:
        assert device == Device("cuda", 0)


@pytest.mark.gpu
def test_blocks_nest_and_go_back_also_after_an_exception():
    import cupy

    with use("cpu"):
        with use("cuda") as gpu:
            assert (gpu.kind, xp.zeros, xp.float32) == ("cuda", cupy.zeros, np.float32)
            with use("cpu"):
                assert xp.zeros is np.zeros
            assert xp.zeros is cupy.zeros
            with pytest.raises(KeyError), use("cpu"):
                raise KeyError
            assert xp.zeros is cupy.zeros
            assert use("auto")
            assert current_device() == Device("cuda", 0)
        assert xp.zeros is np.zeros


@pytest.mark.parametrize(
    "name", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:1.0", "cuda 1", "cuda:²", None, 0]
)
def test_other_names_are_refused_and_change_nothing(name):
    with use("cpu"):
        kind = ValueError if isinstance(name, str) else TypeError
        with pytest.raises(kind, match="device must be 'auto', 'cpu', 'cuda', 'cuda:<index>'") as error:
            use(name)
        assert repr(name) in str(error.value)
        assert current_device() == Device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", Device("cuda", 2)])
def test_a_device_that_cannot_be_used_says_why_and_what_to_do(monkeypatch, name):
    monkeypatch.setattr(active, "inspect_cuda", lambda: NO_GPU)
    with use("cpu"):
        with pytest.raises(DeviceError, match=r"cuda:\d cannot be used: the bus is late; remedy: walk"):
            use(name)
        assert current_device() == Device("cpu")
        assert xp.zeros is np.zeros


def test_a_gpu_that_does_not_exist_is_refused_with_those_that_do(monkeypatch):
    monkeypatch.setattr(active, "inspect_cuda", lambda: ONE_GPU)
    with use("cpu"):
        for name in ("cuda:1", "cuda:3"):
            with pytest.raises(DeviceError, match=rf"{name} does not exist; found cuda:0 \(Model T\)"):
                use(name)
        assert current_device() == Device("cpu")


def test_auto_falls_back_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(active, "inspect_cuda", lambda: NO_GPU)
    monkeypatch.setattr(active, "_fallback_said", False)
    with use("cpu"), caplog.at_level(logging.WARNING, logger="xpnet"):
        for _ in range(3):
            use("auto")
            assert current_device() == Device("cpu")
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["xpnet runs on the CPU: the bus is late; remedy: walk (XPNET_DEVICE=cpu silences this)"]


@pytest.mark.gpu
def test_the_gpu_is_current_for_cupy_inside_the_block():
    import cupy

    with use("cuda:0"):
        assert cupy.cuda.Device().id == 0
        assert xp.ones(3).device.id == 0


@pytest.mark.gpu
def test_a_gpu_beyond_the_last_is_refused():
    count = len(backend.inspect_cuda().gpus)
    with pytest.raises(DeviceError, match=f"cuda:{count} does not exist; found cuda:0"):
        use(f"cuda:{count}")
