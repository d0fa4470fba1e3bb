"""The readings of a clock at the layers of a training step: what is counted where, and that the step is unchanged."""

import itertools

import numpy as np
import pytest

from backend import profiling
from layers import Convolution, Relu, Residual, Sequential, Tanh
from tests.support import networks
from training.models import TwoLayerNet
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import SGD
from training.profile.meter import example_batch, readings_of_a_step, seconds_of_a_step

RESIDUAL = networks.NETWORKS["residual"]


def step(network, clock=None, **how):
    clock = itertools.count().__next__ if clock is None else clock
    return readings_of_a_step(network, SGD(), *example_batch(network, 4), clock, **how)


def test_every_layer_is_read_in_every_phase_that_it_has():
    found = step(networks.classifier((6,), Tanh(), Relu()))
    layers = ["Tanh1", "Relu1", "Affine1", "loss"]
    assert list(found) == [
        *((layer, "forward") for layer in layers),
        *((layer, "backward") for layer in reversed(layers)),
        ("optimizer", "update"),
    ]


def test_a_relu_counts_for_the_layer_that_it_is_done_along_with():
    found = step(TwoLayerNet(6, 5, 3))
    assert ("Relu1", "forward") not in found
    assert ("Relu1", "backward") not in found
    found = step(networks.classifier((1, 3, 3), Convolution.of(1, 2, 2), Relu()))
    assert ("Relu1", "forward") not in found
    assert ("Relu1", "backward") in found


def test_what_sublayers_take_counts_for_them_alone():
    """A counter that only a layer inside another moves on."""
    count = 0

    class Counting(Tanh):
        def forward(self, x):
            nonlocal count
            count += 7
            return super().forward(x)

    network = networks.classifier((6,), Residual(Sequential(Counting(), Relu())))
    found = step(network, lambda: count)
    assert {place: read for place, read in found.items() if read} == {("Residual1.body.Counting1", "forward"): 7}


def test_a_metered_step_is_the_step():
    metered, plain = RESIDUAL(), RESIDUAL()
    plain.params.flat[...] = metered.params.flat
    x, t = example_batch(plain, 4)
    readings_of_a_step(metered, SGD(), x, t, itertools.count().__next__)
    plain.step_gradients(x, t)
    SGD().update(plain.params, plain.grads)
    np.testing.assert_array_equal(metered.params.flat, plain.params.flat)


def test_nothing_listens_after_a_step_even_one_that_fails():
    def broken():
        raise OSError("no reading")

    with pytest.raises(OSError, match="no reading"):
        step(RESIDUAL(), broken)
    assert not profiling._listeners


def test_float16_is_updated_under_a_loss_scale():
    network = TwoLayerNet(6, 5, 3).astype("float16")
    scaler = LossScaler()
    assert example_batch(network, 4)[0].dtype == "float16"
    assert ("optimizer", "update") in step(network, scaler=scaler)
    assert network.grads.flat.any()


def test_seconds_are_medians_of_the_steps_after_the_first(monkeypatch):
    """A clock whose readings are 100 s apart while the steps warm up, and 1, 5, 3 s apart then."""
    pace = iter([100] * 3 + [1, 5, 3, 3])
    now = [0, 0]

    def clock():
        now[0] += now[1] * 10**9
        return now[0]

    network = TwoLayerNet(6, 5, 3)
    right = network.step_gradients

    def next_step(*arguments):
        now[1] = next(pace)
        return right(*arguments)

    monkeypatch.setattr(network, "step_gradients", next_step)
    monkeypatch.setattr("training.profile.meter.time.perf_counter_ns", clock)
    found = seconds_of_a_step(network, SGD(), *example_batch(network, 4), steps=3)
    readings = step(network, itertools.count().__next__)
    assert found == {place: pytest.approx(3.0 * count) for place, count in readings.items()}
