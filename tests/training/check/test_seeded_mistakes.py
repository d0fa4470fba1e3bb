"""``xpnet check`` finds mistakes of a device: each is put into its kernels or into its results."""

import functools
import re

import numpy as np
import pytest

from backend import array_module
from kernels import activations, batch_norm, convolution, implicit_gemm
from kernels.core import launch
from layers import Dropout, affine
from training.check import TRAININGS, compare, train_in_lockstep
from training.data import Loader
from training.models import Network
from training.optim import formulas
from training.optim import optimizer as optimizer_module

pytestmark = pytest.mark.gpu

TWO_ULPS = 1 + 2.0**-22


def on_device(array):
    return array_module(array) is not np


def in_kernel(file, old, new):
    """``new`` in place of the first ``old`` in the source of a kernel."""

    def install(monkeypatch):
        right = launch.Kernel.code

        def code(kernel, t, wide):
            text = right(kernel, t, wide)
            if kernel.file != file:
                return text
            assert old in text
            return text.replace(old, new, 1)

        monkeypatch.setattr(launch.Kernel, "code", code)
        monkeypatch.setattr(launch, "_plans", {})
        compile_anew = functools.cache(launch.Kernel.compiled.__wrapped__)
        monkeypatch.setattr(launch.Kernel, "compiled", lambda kernel, t, wide: compile_anew(kernel, t, wide))

    return install


def in_result(owner, name, change):
    """The result of a function is changed where it lies on the device; a tuple's first array."""

    def install(monkeypatch):
        right = getattr(owner, name)

        def wrong(*arguments, **options):
            result = right(*arguments, **options)
            first = result[0] if isinstance(result, tuple) else result
            if on_device(first):
                change(first)
            return result

        monkeypatch.setattr(owner, name, wrong)

    return install


def in_scalars(factors):
    """Numbers that an optimizer hands to its kernel are multiplied by factors."""

    def install(monkeypatch):
        def wrong(name, formula, scalars, *arguments, **options):
            scalars = {key: value * factors.get(key, 1) for key, value in scalars.items()}
            formulas.update_on_device(name, formula, scalars, *arguments, **options)

        monkeypatch.setattr(optimizer_module, "update_on_device", wrong)

    return install


def scaled(factor):
    def change(array):
        array *= factor

    return change


def rectified_two_ulps_too_steep(monkeypatch):
    in_result(activations, "relu", scaled(TWO_ULPS))(monkeypatch)
    right = activations.rectify

    def wrong(y, positive):
        right(y, positive)
        if on_device(y):
            y *= TWO_ULPS

    right_forward = implicit_gemm.forward

    def wrong_epilogue(*arguments):
        moments = right_forward(*arguments)
        *_, y, positive, _ = arguments
        if positive is not None:
            y *= TWO_ULPS
        return moments

    monkeypatch.setattr(activations, "rectify", wrong)
    monkeypatch.setattr(implicit_gemm, "forward", wrong_epilogue)


def last_image_forgotten(monkeypatch):
    right = convolution.convolution_backward_weight

    def wrong(x, dy, *arguments, **options):
        if on_device(x) and len(x) > 1:
            dy = dy.copy()
            dy[-1] = 0
        return right(x, dy, *arguments, **options)

    monkeypatch.setattr(convolution, "convolution_backward_weight", wrong)


def unbiased_variance(monkeypatch):
    right = batch_norm.batch_norm

    def wrong(x, gamma, beta, running_mean, running_variance, epsilon, momentum, *others):
        before = momentum * running_variance
        result = right(x, gamma, beta, running_mean, running_variance, epsilon, momentum, *others)
        if on_device(x):
            running_variance += (running_variance - before) * 0.001
        return result

    monkeypatch.setattr(batch_norm, "batch_norm", wrong)


def gradients_scaled_after_backward(monkeypatch):
    right = Network.step_gradients

    def wrong(network, *arguments):
        loss = right(network, *arguments)
        if on_device(loss):
            network.grads.flat *= 1.001
        return loss

    monkeypatch.setattr(Network, "step_gradients", wrong)


def labels_of_the_neighbor(monkeypatch):
    right = Loader.batch

    def wrong(loader, *arguments):
        x, t = right(loader, *arguments)
        return x, array_module(t).roll(t, 1) if on_device(t) else t

    monkeypatch.setattr(Loader, "batch", wrong)


def another_dropout(monkeypatch):
    right = Dropout.forward

    def wrong(layer, x):
        y = right(layer, x)
        if on_device(y) and y.ndim == 2:
            y[0] *= -1
        return y

    monkeypatch.setattr(Dropout, "forward", wrong)


def rows_of(*optimizers):
    return {row for name in optimizers for row in (f"optimizer {name}", f"{name} under a loss scale")}


OPERATIONS = {
    "relu, 2 ulps": (rectified_two_ulps_too_steep, {"relu", "relu along with a layer"}),
    "sigmoid, 2 ulps": (in_result(activations, "sigmoid", scaled(TWO_ULPS)), {"sigmoid"}),
    "tanh, 2 ulps": (in_result(activations, "tanh", scaled(TWO_ULPS)), {"tanh"}),
    "gelu, 2 ulps": (in_result(activations, "gelu", scaled(TWO_ULPS)), {"gelu"}),
    "softmax, 2 ulps": (
        in_kernel("softmax.cu", "/ scale.total, y[k]);", f"/ scale.total * {TWO_ULPS!r}f, y[k]);"),
        {"softmax", "softmax cross-entropy"},
    ),
    "batch normalization, 2 ulps": (
        in_result(batch_norm, "batch_norm", scaled(TWO_ULPS)),
        {"batch normalization"},
    ),
    "batch normalization in evaluation, 2 ulps": (
        in_result(batch_norm, "normalize", scaled(TWO_ULPS)),
        {"batch normalization, evaluated"},
    ),
    "a product, 1e-6": (in_result(affine, "matmul", scaled(1 + 1e-6)), {"affine"}),
    "the last maximum wins": (in_kernel("pooling.cu", "value > best", "value >= best"), {"max pooling"}),
    "epsilon of batch normalization": (
        in_kernel("batch_norm.cu", "+ epsilon)", "+ epsilon * 1.01f)"),
        {"batch normalization", "batch normalization, evaluated"},
    ),
    "a constant of Philox": (
        in_kernel("philox.cu", "0xCD9E8D57u", "0xCD9E8D58u"),
        {"dropout", "dropout, inverted"},
    ),
    "epsilon of optimizers": (
        in_scalars({"eps": 1.0001, "scaled_eps": 1.0001}),
        rows_of("adam", "adamw", "adagrad", "rmsprop"),
    ),
    "momentum": (in_scalars({"momentum": 1 - 2.0**-23}), rows_of("momentum", "nesterov")),
    "the last image forgotten": (
        last_image_forgotten,
        {"convolution", "convolution, depthwise", "convolution, transposed"},
    ),
    "running variance": (unbiased_variance, {"batch normalization"}),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_mistake_is_found_among_the_operations(monkeypatch, name):
    install, wrong = OPERATIONS[name]
    install(monkeypatch)
    assert {row.operation for row in compare("cuda", ("float32",)) if not row.passed} == wrong


ANY = r"[Wb]\d+"
"""Any parameter: every one has the optimizer's mistake, and roundings decide which shows it first."""

STEPS = {
    "gradients scaled after backward": (gradients_scaled_after_backward, 0, ("Affine2", "dW")),
    "labels of the neighbor": (labels_of_the_neighbor, 0, ("batch", "t")),
    "another dropout": (another_dropout, 0, ("Dropout1", "y")),
    "running variance": (unbiased_variance, 1, ("BatchNormalization3", "running_var")),
    "momentum": (in_scalars({"momentum": 1 - 2.0**-23}), 1, ("optimizer", ANY)),
    "epsilon of Adam": (in_scalars({"scaled_eps": 1.01}), 0, ("optimizer", ANY)),
    "the last maximum wins": (in_kernel("pooling.cu", "value > best", "value >= best"), 0, ("Pooling3", "dx")),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_mistake_is_found_in_training_and_placed(monkeypatch, name):
    install, training, place = STEPS[name]
    install(monkeypatch)
    divergence = train_in_lockstep("cuda", 2, *TRAININGS[training], batch_size=4).divergence
    assert divergence.layer == place[0]
    assert re.fullmatch(place[1], divergence.array)
