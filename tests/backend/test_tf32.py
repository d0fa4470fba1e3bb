"""TF32 is what was asked for by name, and nothing else."""

from types import SimpleNamespace

import pytest

import backend
from backend import DeviceError, allow_tf32, tf32, use


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
@pytest.mark.parametrize(("capability", "has"), [("60", False), ("75", False), ("80", True), ("120", True)])
def test_it_takes_a_compute_capability_of_8_or_higher(monkeypatch, capability, has):
    import cupy

    with use("cuda"):
        monkeypatch.setattr(cupy.cuda, "Device", lambda index: SimpleNamespace(compute_capability=capability))
        if has:
            allow_tf32()
        else:
            with pytest.raises(DeviceError, match=r"compute capability 8\.0 or higher; the active device is cuda:0"):
                allow_tf32()
        assert kind() == ("tf32" if has else "fp32")
        monkeypatch.undo()


@pytest.mark.gpu
def test_a_cupy_without_the_choice_is_an_error_where_it_matters_alone(monkeypatch):
    from cupy import _core

    with use("cuda"):
        monkeypatch.delattr(_core, "set_compute_type")
        message = r"CuPy .* does not let TF32 be allowed or forbidden: leave --precision tf32 and CUPY_TF32"
        monkeypatch.setattr(tf32, "_has", lambda device: True)
        with pytest.raises(DeviceError, match=message):
            allow_tf32()
        allow_tf32(False)
        monkeypatch.setenv("CUPY_TF32", "1")
        with pytest.raises(DeviceError, match=message):
            allow_tf32(False)
        monkeypatch.undo()
        assert kind() == "fp32"


@pytest.mark.gpu
def test_the_environment_alone_does_nothing(monkeypatch):
    """CuPy reads CUPY_TF32 at its first product, unless it was told before."""
    from cupy import _core

    monkeypatch.setenv("CUPY_TF32", "1")
    _core.set_compute_type("float32", _core._routines_linalg.COMPUTE_TYPE_TBD)
    with backend.use("cuda"):
        assert kind() == "fp32"
