"""Launches counted by CUPTI, which the emulated device has a small one of, and the errors where it is missing."""

import pytest

import backend
from tests.support import device_counts, networks, product_calls
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import Adam
from training.profile import launches
from training.profile.launches import LaunchCounter, NoCounterError
from training.profile.meter import example_batch, launches_of_a_step, readings_of_a_step

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _on_a_gpu():
    with backend.use("cuda"):
        yield


@pytest.fixture
def _cupti():
    try:
        with LaunchCounter():
            pass
    except NoCounterError as error:
        pytest.skip(str(error))


def counted(network, samples=8):
    scaler = LossScaler() if network.params.flat.dtype == "float16" else None
    return launches_of_a_step(network, Adam(), *example_batch(network, samples), scaler)


@pytest.mark.usefixtures("_cupti")
def test_launches_counted_by_hand():
    """Count bias with ReLU and mask; sums, with the mask applied; the update. A product may be several launches."""
    network = networks.NETWORKS["TwoLayerNet"]()
    counted(network)
    with LaunchCounter() as counter, product_calls.recorded(counter) as calls:

        def read(clock):
            return readings_of_a_step(network, Adam(), *example_batch(network, 8), clock)

        products, kernels = read(calls.count), read(lambda: counter() - calls.launched)
        assert calls.launched >= calls.count() > 0
    of_layers = {  # without the loss
        place: (products[place], kernels[place]) for place in products if place[0] != "loss"
    }
    assert of_layers == {
        ("Affine1", "forward"): (1, 1),
        ("Affine2", "forward"): (1, 1),
        ("Affine2", "backward"): (2, 1),
        ("Affine1", "backward"): (1, 1),
        ("optimizer", "update"): (0, 1),
    }


@pytest.mark.usefixtures("_cupti")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["ConvNet", "groups", "depthwise", "poolings", "residual"])
def test_launches_are_those_that_the_emulated_device_counts(name, dtype):
    pytest.importorskip("cuda_on_cpu", reason="only the emulated device counts, too")
    network = networks.NETWORKS[name]().astype(dtype)
    expected, _ = device_counts.readings(network, 8, device_counts.launches)
    assert counted(network) == expected


@pytest.mark.usefixtures("_cupti")
def test_threads_and_calls_within_calls_are_counted_once():
    with LaunchCounter() as counter:
        call = launches._Call(0, b"cudaLaunchKernel")
        for site in (0, 0, 1, 1):  # a runtime call that makes a driver call
            call.site = site
            counter._on_call(None, launches.DRIVER, 307, launches.ctypes.pointer(call))
        assert counter() == 1


@pytest.mark.usefixtures("_cupti")
def test_a_second_counter_is_refused_and_the_first_goes_on():
    from backend import xp

    with LaunchCounter() as counter:
        with pytest.raises(NoCounterError, match=r"cuptiSubscribe failed with code \d+; end other profilers"):
            LaunchCounter().__enter__()
        xp.arange(3) + xp.arange(3)
        assert counter() == 3
    assert counter() == 3


def test_a_missing_library_is_told_with_the_remedy(monkeypatch):
    def refuse(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", refuse)
    with pytest.raises(NoCounterError, match=r"libcupti.so.1\d was not found; remedy: pip install nvidia-cuda-cupti"):
        LaunchCounter().__enter__()
