"""TF32 is what was asked for by name, and nothing else."""

import pytest

import backend
from backend import DeviceError, allow_tf32, tf32, use


@pytest.fixture(autouse=True)
def _forbidden_again():
    yield
    with use("cpu"):
        allow_tf32(False)


def kind():
    from cupy import _core

    names = _core._routines_linalg
    return {names.COMPUTE_TYPE_TF32: "tf32", names.COMPUTE_TYPE_DEFAULT: "fp32"}[_core.get_compute_type("float32")]


def test_a_cpu_has_none():
    with use("cpu"):
        allow_tf32(False)
        with pytest.raises(DeviceError, match=r"TF32 needs a CUDA GPU of compute capability 8\.0 or higher; .* is cpu"):
            allow_tf32()


@pytest.mark.gpu
def test_products_are_float32_unless_tf32_is_named():
    with use("cuda") as device:
        assert kind() == "fp32"
        if not tf32._has(device):
            pytest.skip(f"{device} has no TF32: compute capability below 8.0")
        allow_tf32()
        assert kind() == "tf32"
        with use("cpu"), use("cuda"):
            assert kind() == "tf32", "a switch of devices forgot what was asked for"
        allow_tf32(False)
        assert kind() == "fp32"


@pytest.mark.gpu
def test_an_older_gpu_has_none(monkeypatch):
    with use("cuda"):
        monkeypatch.setattr(tf32, "_has", lambda device: False)
        with pytest.raises(DeviceError, match=r"compute capability 8\.0 or higher; the active device is cuda:0"):
            allow_tf32()
        assert kind() == "fp32"


@pytest.mark.gpu
def test_the_environment_alone_does_nothing(monkeypatch):
    """CuPy reads CUPY_TF32 at its first product, unless it was told before."""
    from cupy import _core

    monkeypatch.setenv("CUPY_TF32", "1")
    _core.set_compute_type("float32", _core._routines_linalg.COMPUTE_TYPE_TBD)
    with backend.use("cuda"):
        assert kind() == "fp32"
