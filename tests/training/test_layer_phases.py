"""Meters at the layers of a training step: what they read, and that the step stays what it is."""

import itertools

import networks
import numpy as np
import pytest

from layers import Relu, Tanh
from training.models import TwoLayerNet
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import SGD
from training.profile.layer_phases import example_batch, named_layers, phases_of_a_step, seconds_of_a_step

RESIDUAL = networks.NETWORKS["residual"]


def step(network, read=None, **how):
    read = itertools.count().__next__ if read is None else read
    return phases_of_a_step(network, SGD(), *example_batch(network, 4), read, **how)


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
    assert ("Relu1", "backward") in found


def test_what_sublayers_take_counts_for_them_alone():
    """A meter that goes on by 1 at each reading: a call takes 1 for itself, and 1 for each call within."""
    found = step(RESIDUAL())
    assert found["Residual1.body.Convolution1", "forward"] == 1
    inside = [place for place in found if place[0].startswith("Residual1.") and place[1] == "forward"]
    assert found["Residual1", "forward"] == 1 + len(inside)
    assert not [name for name, _ in found if name == "Residual1.body"]  # only calls its layers


def test_a_metered_step_is_the_step():
    metered, plain = RESIDUAL(), RESIDUAL()
    plain.params.flat[...] = metered.params.flat
    x, t = example_batch(plain, 4)
    phases_of_a_step(metered, SGD(), x, t, itertools.count().__next__)
    plain.step_gradients(x, t)
    SGD().update(plain.params, plain.grads)
    np.testing.assert_array_equal(metered.params.flat, plain.params.flat)


def test_no_meter_is_left_behind_even_by_a_step_that_fails():
    network = RESIDUAL()
    step(network)

    def broken():
        raise OSError("no reading")

    with pytest.raises(OSError, match="no reading"):
        step(network, broken)
    for _, layer in named_layers(network):
        assert not {"forward", "forward_relu", "backward"} & vars(layer).keys()


def test_float16_is_updated_under_a_loss_scale():
    network = TwoLayerNet(6, 5, 3).astype("float16")
    scaler = LossScaler()
    assert example_batch(network, 4)[0].dtype == "float16"
    assert ("optimizer", "update") in step(network, scaler=scaler)
    assert network.grads.flat.any()


def test_seconds_are_medians_of_the_steps_after_the_first(monkeypatch):
    """A clock whose steps take 100 s a layer while they warm up, and 1, 5, 3 s then."""
    pace = iter([100.0] * 3 + [1.0, 5.0, 3.0])
    now = [0.0, 0.0]

    def clock():
        now[0] += now[1]
        return now[0]

    network = TwoLayerNet(6, 5, 3)
    right = network.step_gradients

    def next_step(*arguments):
        now[1] = next(pace)
        return right(*arguments)

    monkeypatch.setattr(network, "step_gradients", next_step)
    monkeypatch.setattr("training.profile.layer_phases.time.perf_counter", clock)
    found = seconds_of_a_step(network, SGD(), *example_batch(network, 4), steps=3)
    assert set(found.values()) == {3.0}
