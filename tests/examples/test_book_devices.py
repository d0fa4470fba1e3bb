"""The book's programs compute on a GPU what they compute on the CPU, at the smallest sizes."""

import numpy as np
import pytest

import backend
from backend import asnumpy, random
from examples import (
    activation_histograms,
    batch_norm,
    convnet,
    half_precision,
    hyperparameters,
    optimizers,
    overfitting,
    two_layer_net,
    weight_init,
)
from tests.support.example_checks import some_digits


def _convnet():
    data, test = some_digits(20, 10, flatten=False)
    network = convnet.MODELS["SimpleConvNet"]()
    rows = list(convnet.train(network, data, test, epochs=1, batch_size=10))
    return [rows, asnumpy(network.params["W1"])]


def _half_precision():
    data, (x, _) = some_digits(8, 4, flatten=False)
    network = half_precision.train(data, steps=1, batch_size=4)
    return [half_precision.infer(network, x, dtype, batch_size=3).scores for dtype in ("float32", "float16")]


PROGRAMS = {
    "two_layer_net": lambda: [list(two_layer_net.accuracies(*some_digits(100, 50), epochs=1, replace=False))],
    "optimizers": lambda: list(optimizers.losses(some_digits(50)[0], steps=3, batch_size=20).values()),
    "weight_init": lambda: list(weight_init.losses(some_digits(50)[0], steps=3, batch_size=20).values()),
    "activation_histograms": lambda: activation_histograms.activations(*activation_histograms.CASES["relu, He"], 10),
    "batch_norm": lambda: list(batch_norm.accuracies(some_digits(100)[0], [0.05], epochs=1).values()),
    "overfitting": lambda: list(overfitting.accuracies(*some_digits(100, 50), epochs=1).values()),
    "hyperparameters": lambda: [t.accuracies for t in hyperparameters.search(some_digits(150)[0], 2, epochs=1)],
    "convnet": _convnet,
    "half_precision": _half_precision,
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", PROGRAMS)
def test_same_numbers_on_both_devices(name):
    found = []
    for device in ("cpu", "cuda"):
        with backend.use(device):
            random.seed(0)
            found.append(PROGRAMS[name]())
    # Few steps apart by roundings: of float32, or, for scores below 4 in float16, of that. Accuracies of the few images
    # are multiples of a hundredth at least, and none lies so close that a rounding decides.
    for on_cpu, on_gpu in zip(*found, strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3, atol=2e-3 if name == "half_precision" else 2e-5)
