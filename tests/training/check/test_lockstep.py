"""Training in lockstep: that right devices pass, and the first wrong thing is named."""

import math
from typing import NamedTuple

import numpy as np
import pytest

from kernels import activations
from kernels.core import native
from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    Layer,
    Pooling,
    Relu,
    Residual,
    Sequential,
    SoftmaxWithLoss,
    Tanh,
)
from training.check import TRAININGS, Divergence, train_file_in_lockstep, train_in_lockstep
from training.data import Loader
from training.models import Network
from training.optim.optimizers import NAMES


@pytest.mark.parametrize(("model", "optimizer"), TRAININGS)
def test_the_cpu_in_float32_is_right(model, optimizer):
    result = train_in_lockstep("cpu", 4, model, optimizer, seed=1)
    assert result.passed
    assert result.steps == 4
    assert result.loss_difference == 0
    assert 0 < result.share < 0.5


@pytest.mark.parametrize("model", ["TwoLayerNet", "SimpleConvNet"])
def test_the_other_models_have_bounds_too(model):
    assert train_in_lockstep("cpu", 2, model, "sgd").passed


class Square(Layer):
    """A layer of one's own."""

    def forward(self, x):
        return self.save(x * x, x)

    def backward(self, dout):
        (x,) = self.saved(dout)
        return 2 * x * dout


class Doubled(Residual):
    """Layers that are combined by code of one's own."""

    def forward(self, x):
        return super().forward(x) * 2


def residual_network():
    """Residual blocks with and without shortcut, with and without a Relu and a normalization behind the sum."""

    def body(*more):
        return Sequential(Convolution.of(4, 4, 3, pad=1), Relu(), Convolution.of(4, 4, 3, pad=1), *more)

    first = Residual(Convolution.of(2, 4, 3, pad=1), Convolution.of(2, 4, 1))
    layers = (
        first, Residual(body(BatchNormalization.of(4))), Relu(), Residual(body(), Convolution.of(4, 4, 1)), Relu(),
        Residual(Sequential(BatchNormalization.of(4)), Sequential(Tanh())), Relu(), Residual(Relu()),
        Sequential(Pooling(2, 2, stride=2), Sequential(Flatten()), Square()), Affine.of(36, 3),
    )  # fmt: skip
    return Network(Sequential(*layers), (2, 6, 6))


def rows(loss, outputs=3):
    return lambda: Network(Sequential(Affine.of(6, 4), Tanh(), Dropout(0.5), Affine.of(4, outputs)), (6,), loss=loss)


NETWORKS = {
    "residual": residual_network,
    **{loss: rows(loss) for loss in ("softmax", "hinge", "sigmoid", "mean-squared", "huber")},
    "one number": rows("mean-squared", 1),
    "weighted": rows(SoftmaxWithLoss(0.1, [1, 2, 3], ignore_index=1)),
}


@pytest.mark.parametrize("place", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_network_of_a_file_is_trained(place, kind, tmp_path):
    file = tmp_path / "own.safetensors"
    NETWORKS[kind]().save_params(file)
    result = train_file_in_lockstep(place, file, 3, allow_import=True)
    assert (result.model, result.steps, result.divergence) == ("Network", 3, None)
    assert 0 < result.share < 1


@pytest.mark.parametrize(
    ("owner", "name", "where"),
    [
        (Residual, "forward", ("Residual1", "y")),
        (Residual, "backward", ("Residual5", "dx")),  # the last one: it comes first
        (BatchNormalization, "forward_added_relu", ("Residual2.body.BatchNormalization1", "y")),
    ],
)
def test_what_is_wrong_inside_of_a_block_is_named(owner, name, where, tmp_path, monkeypatch):
    file = tmp_path / "own.safetensors"
    residual_network().save_params(file)
    right = getattr(owner, name)

    def wrong(layer, *arguments):
        result = right(layer, *arguments)
        array = result[0] if isinstance(result, tuple) else result
        if array.dtype == np.float32:  # bounds are computed in float64
            array *= np.float32(1.001)
        return result

    monkeypatch.setattr(owner, name, wrong)
    divergence = train_file_in_lockstep("cpu", file, 2, allow_import=True).divergence
    assert (divergence.step, divergence.layer, divergence.array) == (1, *where)


def test_layers_that_are_combined_by_unknown_code_are_refused(tmp_path):
    file = tmp_path / "own.safetensors"
    Network(Sequential(Residual(Doubled(Affine.of(6, 6)))), (6,)).save_params(file)
    message = "own.safetensors cannot be checked: layer Residual1.body combines other layers by code of its own"
    with pytest.raises(ValueError, match=message):
        train_file_in_lockstep("cpu", file, 3, allow_import=True)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", NAMES)
def test_every_optimizer_keeps_the_bits_of_the_cpu(optimizer):
    result = train_in_lockstep("cuda", 3, "TwoLayerNet", optimizer, seed=5)
    assert result.divergence is None
    assert result.loss_difference < 1e-5


def test_replicas_stay_equal_although_rounding_differs(monkeypatch):
    """A second epoch begins where the first ends, and every step starts from the CPU's parameters."""
    monkeypatch.setattr(Loader, "__len__", lambda loader: 2)
    result = train_in_lockstep("cpu", 5, "ConvNet", "momentum", batch_size=4)
    assert result.divergence is None


def test_the_layer_is_named_where_the_first_wrong_number_arises(monkeypatch):
    """A relu that is done along with the convolution before it is wrong in float32, not in float64."""

    def wrong(y, positive, right=activations.rectify):
        right(y, positive)
        if y.dtype == np.float32 and y.shape[1:3] != (28, 28):  # pixels, channels last
            y *= 1.1

    monkeypatch.setattr(activations, "rectify", wrong)
    with native.enabled(False):  # a C kernel computes both in one pass
        divergence = train_in_lockstep("cpu", 2, batch_size=4).divergence
    assert (divergence.step, divergence.layer, divergence.array) == (1, "Convolution3", "y")
    assert divergence.error > divergence.tolerance


def test_a_gradient_that_is_wrong_after_backward_is_found(monkeypatch):
    def wrong(network, x, t, scale=1.0, right=Network.step_gradients):
        loss = right(network, x, t, scale)
        network.grads["gamma2"][0] *= 1.001
        return loss

    monkeypatch.setattr(Network, "step_gradients", wrong)
    divergence = train_in_lockstep("cpu", 1, "ConvNet", "momentum", batch_size=4).divergence
    assert (divergence.layer, divergence.array) == ("BatchNormalization2", "dgamma")


def test_a_layer_that_is_given_another_ones_output_is_found(monkeypatch):
    class Turned(NamedTuple):
        layer: Dropout

        def forward(self, x):
            return self.layer.forward(x[::-1])

    def wrong(sequence, phase="forward", fuse=True, right=Sequential.plan):
        steps = right(sequence, phase, fuse)
        if phase == "backward":
            return steps
        return [step._replace(layer=Turned(step.layer)) if isinstance(step.layer, Dropout) else step for step in steps]

    monkeypatch.setattr(Sequential, "plan", wrong)
    divergence = train_in_lockstep("cpu", 1, batch_size=4).divergence
    assert divergence == Divergence(1, "Dropout1", "x", math.inf, 0.0)


def test_a_device_that_raises_is_wrong(monkeypatch):
    calls = []

    def raises(network, x, t, scale=1.0, right=Network.step_gradients):
        calls.append(0)
        if len(calls) == 3:  # the second step of the device
            raise RuntimeError("out of order\nno more is known")
        return right(network, x, t, scale)

    monkeypatch.setattr(Network, "step_gradients", raises)
    result = train_in_lockstep("cpu", 3, "TwoLayerNet", "sgd")
    assert result.divergence == Divergence(2, "", "RuntimeError: out of order", math.inf, 0.0)
    assert not result.passed
