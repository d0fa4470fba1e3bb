"""The check itself: it passes what is right, and catches each mistake that people make."""

import copy

import numpy as np
import pytest

import backend
import layers
from backend import asnumpy, xp
from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Layer,
    Pooling,
    Relu,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    parameter,
)
from training.check.gradients import GradientError, gradient_check
from training.models import ConvNet, Network, TwoLayerNet


def normal(*shape, seed=0, dtype="float32"):
    return backend.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def affine(inputs=4, outputs=3, cls=Affine):
    return cls(normal(inputs, outputs, seed=1), normal(outputs, seed=2))


def snapshot(arrays):
    return {name: asnumpy(array).copy() for name, array in arrays.items()}


def assert_unchanged(arrays, before):
    assert list(arrays) == list(before)
    for name, array in arrays.items():
        np.testing.assert_array_equal(asnumpy(array), before[name])


def images(c=2, h=6, w=5):
    return normal(3, c, h, w)


RIGHT = {
    "affine": (lambda: affine(), lambda: normal(5, 4)),
    "convolution": (lambda: Convolution.of(2, 3, 3, pad=1), images),
    "batch norm": (lambda: BatchNormalization(normal(2), normal(2, seed=1)), images),
    "batch norm in evaluation": (lambda: BatchNormalization(normal(2), normal(2, seed=1)).eval(), images),
    "dropout": (lambda: Dropout(0.4), lambda: normal(6, 4)),
    "pooling": (lambda: Pooling(2, 2, stride=2), images),
    "gelu": (lambda: layers.Gelu(), lambda: normal(6, 4)),
    "no elements": (lambda: affine(), lambda: normal(0, 4)),
    "nested": (
        lambda: Residual(
            Sequential(Convolution.of(2, 4, 3, pad=1), BatchNormalization.of(4), Relu(), Dropout(0.3)),
            Convolution.of(2, 4, 1),
        ),
        images,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_layers_pass(device, name):
    make, x = RIGHT[name]
    layer, x = make(), x()
    errors = gradient_check(layer, x)
    assert [error.name for error in errors] == ["input", *layer.params]
    assert all(error.relative <= 1e-6 for error in errors)
    if x.size:
        assert any(error.numerical for error in errors)


@pytest.mark.parametrize("make", [lambda: TwoLayerNet(6, 5, 4, "he"), lambda: ConvNet((1, 12, 12), (2, 3, 2))])
def test_right_networks_pass(device, make):
    network = make()
    x = backend.asarray(np.random.default_rng(0).standard_normal((3, *network.input_dim)))
    t = backend.asarray(np.array([0, 3, 1]))
    assert [error.name for error in gradient_check(network, x, t)] == list(network.params)


class Cube(Layer):
    """y = x³·s·runs: a layer of somebody's own, as layers/base.py describes it, with a state that counts."""

    s, ds = parameter()
    state_names = ("runs",)

    def __init__(self, s):
        self.s = s
        self.runs = s * 0

    def forward(self, x):
        self.runs += 1
        self.x = x
        return x**3 * self.s * self.runs

    def backward(self, dout):
        dout = dout * self.runs
        self.ds = (dout * self.x**3).sum(axis=0)
        return dout * 3 * self.x**2 * self.s


def test_a_layer_of_one_s_own(device):
    layer = Cube(normal(4, seed=3))
    assert [error.name for error in gradient_check(layer, normal(5, 4))] == ["input", "s"]
    assert not asnumpy(layer.runs).any()
    network = Network(Sequential(affine(3, 4), layer, affine(4, 2)), (3,))
    gradient_check(network, normal(5, 3), backend.asarray(np.array([0, 1, 1, 0, 1])))


def test_layers_of_a_network_can_be_checked_alone():
    """A network spares its first layer the gradient of the data; the check wants it all the same."""
    network = TwoLayerNet(4, 3, 2, "he")
    for part in (network.layers, network.layers[0]):
        assert "input" in [error.name for error in gradient_check(part, normal(5, 4))]


# -- mistakes ------------------------------------------------------------------------------------------------


class Wrong(Affine):
    """An affine layer whose gradients a mistake goes through."""

    def mistake(self, dx):
        raise NotImplementedError

    def backward(self, dout):
        return self.mistake(super().backward(dout))


class WrongSign(Wrong):
    def mistake(self, dx):
        return -dx


class WrongFactor(Wrong):
    def mistake(self, dx):
        self.dW = self.dW / len(dx)
        return dx


class WrongElement(Wrong):
    def mistake(self, dx):
        self.dW = self.dW.copy()
        self.dW[1, 2] *= 1.001
        return dx


class ForgottenBias(Wrong):
    def mistake(self, dx):
        self.db = self.db * 0
        return dx


class NotANumber(Wrong):
    def mistake(self, dx):
        self.db = self.db + xp.nan
        return dx


class InTheWrongPlace(Wrong):
    def mistake(self, dx):
        self.dW = self.dW[::-1]
        return dx


class UnsummedBias(Affine):
    """Its gradient along a direction is right by broadcasting, its shape is not."""

    def backward(self, dout):
        dx = super().backward(dout)
        self.db = dout
        return dx


class MissingBias(Affine):
    def backward(self, dout):
        dx = super().backward(dout)
        del self._grads["b"]
        return dx


class NoInputGradient(Affine):
    def backward(self, dout):
        super().backward(dout)


class SummedInput(Affine):
    def backward(self, dout):
        return super().backward(dout).sum()


class WrongSigmoid(Sigmoid):
    def backward(self, dout):
        (y,) = self.saved()
        return dout * y * y


class WrongRelu(Relu):
    def backward(self, dout):
        return dout.copy()


class WrongBatchNorm(BatchNormalization):
    """Takes mean and variance for constants."""

    def backward(self, dout):
        super().backward(dout)
        return dout * self.gamma / xp.sqrt(self.saved()[0].var(axis=0) + self.eps)


MISTAKES = {
    WrongSign: ["input"],
    WrongFactor: ["W"],
    WrongElement: ["W"],
    ForgottenBias: ["b"],
    NotANumber: ["b"],
    InTheWrongPlace: ["W"],
    UnsummedBias: ["b"],
    MissingBias: ["b"],
    NoInputGradient: ["input"],
    SummedInput: ["input"],
    WrongSigmoid: ["input"],
    WrongRelu: ["input"],
    WrongBatchNorm: ["input"],
}


def mistaken(cls):
    if issubclass(cls, Affine):
        return affine(cls=cls)
    return cls(normal(4), normal(4, seed=1)) if issubclass(cls, BatchNormalization) else cls()


@pytest.mark.parametrize("cls", MISTAKES)
def test_mistakes_are_caught_and_named(cls):
    with pytest.raises(AssertionError) as caught:
        gradient_check(mistaken(cls), normal(5, 4))
    message = str(caught.value)
    assert cls.__name__ in message
    named = [line.split(":")[0].strip() for line in message.splitlines()[1:]]
    assert named == MISTAKES[cls]


def test_a_mistake_inside_a_network_is_caught(device):
    network = Network(Sequential(affine(4, 4), Tanh(), affine(4, 4, WrongFactor), Tanh(), affine(4, 2)), (4,))
    x, t = normal(5, 4), backend.asarray(np.array([0, 1, 1, 0, 1]))
    with pytest.raises(AssertionError, match="Network") as caught:
        gradient_check(network, x, t)
    named = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
    assert named == ["W2"]
    sign = Network(Sequential(affine(4, 4), Tanh(), affine(4, 2, WrongSign)), (4,))
    with pytest.raises(AssertionError, match=r"(?s)W1: backward .*b1: backward") as caught:
        gradient_check(sign, x, t)
    assert "W2" not in str(caught.value)


def test_tolerance_and_seed():
    x = normal(5, 4)
    errors = gradient_check(affine(cls=WrongElement), x, tolerance=0.1)
    assert max(errors, key=lambda error: error.relative).name == "W"
    again = gradient_check(affine(cls=WrongElement), x, tolerance=0.1)
    assert again == errors
    assert gradient_check(affine(), x, seed=1) != gradient_check(affine(), x)


def test_relative_error_is_what_goes_beyond_the_noise():
    assert GradientError("W", 0.25, 0.5).relative == 0.5
    assert GradientError("W", 0.25, 0.5, noise=0.15).relative == pytest.approx(0.2)
    assert GradientError("W", 0.25, 0.5, noise=0.25).relative == 0
    assert GradientError("W", 0.0, 0.0).relative == 0
    assert GradientError("W", 8.0, 10.0).relative == pytest.approx(0.2)
    assert GradientError("W", -10.0, 10.0).relative == pytest.approx(2)


# -- what it leaves alone --------------------------------------------------------------------------------------


def test_model_input_and_random_state_stay_as_they_are(device):
    network = ConvNet((1, 12, 12), (2, 3, 2))
    x, t = normal(3, 1, 12, 12), backend.asarray(np.array([0, 3, 1]))
    loss = network.step_gradients(x, t)
    arrays = {**network.params, **network.state, "flat": network.params.flat, "grads": network.grads.flat}
    arrays |= {"x": x, "t": t}
    before, start = snapshot(arrays), backend.random.default.state
    gradient_check(network, x, t)
    layer = network.layers["BatchNormalization1"]
    gradient_check(layer, normal(3, 2, 4, 4))
    with pytest.raises(AssertionError):
        gradient_check(WrongSigmoid(), x)
    assert_unchanged(arrays, before)
    assert backend.random.default.state == start
    assert network.layers["Convolution1"].W is network.params["W1"]
    assert network.params.flat.dtype == "float32"
    assert np.isfinite(float(loss))


def test_labels_go_with_networks_only():
    x = np.ones((2, 4))
    with pytest.raises(ValueError, match="labels t for a network"):
        gradient_check(TwoLayerNet(4, 3, 2), x)
    with pytest.raises(ValueError, match="none for a layer"):
        gradient_check(affine(), x, np.zeros(2, int))
    with pytest.raises(ValueError, match="takes"):
        gradient_check(affine(), np.ones((2, 5)))


def test_a_missing_gradient_is_found_however_small_it_should_be():
    """Sigmoids in a row make gradients of 1e-6: an error of that size must not pass as small."""

    class Forgetful(Affine):
        def backward(self, dout):
            dx = super().backward(dout)
            self.dW = self.dW * 0
            return dx

    layers = Sequential(
        Forgetful.of(20, 30, init=0.01), Sigmoid(), Affine.of(30, 30, init=0.01), Sigmoid(), Affine.of(30, 4, init=0.01)
    )
    network = Network(layers, (20,))
    x, t = normal(3, 20), np.array([0, 1, 2])
    assert abs(Network(copy.deepcopy(layers), (20,)).gradient(x, t)["b1"]).max() < 1e-3
    with pytest.raises(AssertionError, match="W1"):
        gradient_check(network, x, t)
