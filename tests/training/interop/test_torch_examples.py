"""What PyTorch computed of small networks, read from a file: scores, and five steps of SGD, wherever tests run.

PyTorch 2.13 wrote tests/training/interop/torch/examples.npz by ``python -m tests.support.torch_examples``. Where
PyTorch is installed, the last test holds that it still computes the same of the file's weights and batches.
"""

import importlib.util

import numpy as np
import pytest

from layers import BatchNormalization
from layers.base import walk
from tests.support.torch_examples import FILE, NETWORKS, RATES, STEPS, assert_near, compute, read
from training.interop import from_torch, to_torch
from training.optim import Momentum

HAS_TORCH = importlib.util.find_spec("torch") is not None


def trained(name, network, known):
    optimizer = Momentum(RATES[name])
    for x, t in zip(known["x"][:STEPS], known["t"], strict=True):
        optimizer.update(network.params, network.gradient(x, t))
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_pytorchs(name):
    known = read(name)
    network = from_torch(NETWORKS[name](), known["before"])
    assert_near(network.predict(known["x"][-1]), known["scores"], 1e-5)
    assert set(to_torch(network)) == set(known["before"])


@pytest.mark.parametrize("name", NETWORKS)
def test_five_steps_of_sgd_are_pytorchs(name):
    """Weights and running statistics, which have moved ten times as far as they may differ; and the scores."""
    known = read(name)
    network = trained(name, from_torch(NETWORKS[name](), known["before"]), known)
    found = to_torch(network)
    for key, array in known["after"].items():
        if array.ndim:  # not the number of batches, which xpnet does not count
            assert_near(found[key], array, 1e-4)
            assert float(abs(array - known["before"][key]).max()) > 1e-3, key
    assert_near(network.predict(known["x"][-1]), known["trained_scores"], 1e-4)


def test_the_file_tells_which_variance_runs():
    """With that of a batch, which is not unbiased, a step is not PyTorch's."""
    known = read("images")
    network = from_torch(NETWORKS["images"](), known["before"])
    for _, layer in walk(network.layers):
        if isinstance(layer, BatchNormalization):
            layer.unbiased = False
    found = to_torch(trained("images", network, known))
    with pytest.raises(AssertionError):
        assert_near(found["4.body.1.running_var"], known["after"]["4.body.1.running_var"], 1e-4)


def test_the_file_stays_small():
    assert FILE.stat().st_size < 150_000


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; the extra `bench` has it")
@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_still_computes_what_the_file_has(name):
    known = read(name)
    found = compute(name, known["before"], known["x"], known["t"])
    for key in ("scores", "trained_scores"):
        assert_near(found[key], known[key], 1e-5)
    assert set(found["after"]) == set(known["after"])
    for key, array in known["after"].items():
        np.testing.assert_allclose(found["after"][key], array, rtol=1e-5, atol=1e-5, err_msg=key)
