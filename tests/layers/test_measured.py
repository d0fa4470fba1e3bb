"""A convolution measures its output for the batch normalization behind it."""

import copy

import numpy as np

from backend import asnumpy, random
from layers import BatchNormalization, Convolution, Relu, Residual, Sequential
from tests.support.checks import normal


def chained():
    random.seed(1)
    return Sequential(Convolution.of(3, 8, 3, pad=1), BatchNormalization.of(8), Relu())


def test_it_computes_what_the_layers_do_one_by_one(device):
    chain, x = chained(), normal((4, 3, 9, 7), "float32")
    apart = copy.deepcopy(chain)
    y = chain.forward(x)
    expected = x
    for layer in apart.layers.values():
        expected = layer.forward(expected)
    np.testing.assert_allclose(asnumpy(y), asnumpy(expected), rtol=1e-5, atol=1e-5)
    norm, other = chain["BatchNormalization1"], apart["BatchNormalization1"]
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(asnumpy(getattr(norm, name)), asnumpy(getattr(other, name)), rtol=1e-5, atol=1e-6)
    dout = normal(y.shape, "float32", 5)
    dx, gradient = chain.backward(dout), dout
    for layer in reversed(apart.layers.values()):
        gradient = layer.backward(gradient)
    np.testing.assert_allclose(asnumpy(dx), asnumpy(gradient), rtol=1e-4, atol=1e-4)


def test_where_it_is_asked_for(monkeypatch):
    """In training alone, and only by a BatchNormalization that takes the statistics of its own batch."""
    asked = []
    forward_measured = Convolution.forward_measured
    monkeypatch.setattr(Convolution, "forward_measured", lambda self, x: asked.append(1) or forward_measured(self, x))
    chain, x = chained(), np.ones((2, 3, 4, 4), "float32")
    norm = chain["BatchNormalization1"]
    chain.forward(x)
    assert asked == [1]
    norm.training = False
    chain.forward(x)
    norm.training, norm.frozen = True, True
    chain.forward(x)
    norm.frozen, norm.across = False, object()
    assert not norm.takes_moments
    assert asked == [1]


def test_a_residual_block_asks_too(monkeypatch):
    asked = []
    forward_measured = Convolution.forward_measured
    monkeypatch.setattr(Convolution, "forward_measured", lambda self, x: asked.append(1) or forward_measured(self, x))
    body = Sequential(Convolution.of(3, 3, 3, pad=1), BatchNormalization.of(3))
    Sequential(Residual(body), Relu()).forward(np.ones((2, 3, 4, 4), "float32"))
    assert asked == [1]


def test_moments_of_another_array_are_not_taken():
    """Of a forward that was interrupted behind the convolution."""
    chain, x = chained(), np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype("float32")
    norm, fresh = chain["BatchNormalization1"], BatchNormalization.of(8)
    y, moments = chain["Convolution1"].forward_measured(x)
    norm.expect(y, moments)
    other = y * 2 + 1
    assert np.array_equal(norm.forward(other), fresh.forward(other))
    assert np.array_equal(norm.forward(y), fresh.forward(y))  # they are forgotten


def test_a_copy_expects_nothing():
    norm = BatchNormalization.of(8)
    norm.expect(np.ones((1, 8), "float32"), None)
    assert "_expected" not in vars(copy.deepcopy(norm))


def test_a_layer_with_a_forward_of_its_own_is_not_asked():
    class Loud(Convolution):
        def forward(self, x):
            return super().forward(x) * 2

    norm = BatchNormalization.of(2)
    steps = Sequential(Loud.of(1, 2, 3), norm).steps
    assert [step.normalization for step in steps] == [None, None]
    steps = Sequential(Convolution.of(1, 2, 3), norm).steps
    assert [step.normalization for step in steps] == [norm, None]
