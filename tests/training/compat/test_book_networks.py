"""The book's networks, Trainer and util: first weights, losses and steps against plain NumPy."""

import math
import os
import re

import numpy as np
import pytest

from backend import asarray, asnumpy, xp
from tests.support.checks import assert_same
from training.compat.book import multi_layer_net, multi_layer_net_extend, trainer, util
from training.compat.book.multi_layer_net import MultiLayerNet
from training.compat.book.multi_layer_net_extend import MultiLayerNetExtend
from training.compat.book.trainer import Trainer
from training.compat.book.util import conv_output_size, shuffle_dataset, smooth_curve


def samples(count=12, inputs=5, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return asarray(rng.random((count, inputs)).astype("float32")), asarray(rng.integers(0, classes, count))


def test_modules_export_what_star_imports_give():
    """Programs of the book take np, os and OrderedDict from star imports, too."""
    assert {"np", "os", "sys", "OrderedDict", "Affine", "sigmoid", "im2col"} <= set(multi_layer_net.__all__)
    assert {"np", "MultiLayerNetExtend", "BatchNormalization"} <= set(multi_layer_net_extend.__all__)
    assert {"np", "SGD", "Trainer", "os", "sys"} <= set(trainer.__all__)
    for module in (multi_layer_net, multi_layer_net_extend, trainer, util):
        assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize(
    ("init", "scales"),
    [
        ("relu", (math.sqrt(2 / 5), math.sqrt(2 / 4))),
        ("He", (math.sqrt(2 / 5), math.sqrt(2 / 4))),
        ("sigmoid", (math.sqrt(1 / 5), math.sqrt(1 / 4))),
        ("Xavier", (math.sqrt(1 / 5), math.sqrt(1 / 4))),
        (0.01, (0.01, 0.01)),
        (np.float64(0.01), (0.01, 0.01)),
    ],
)
@pytest.mark.parametrize("model", [MultiLayerNet, MultiLayerNetExtend])
def test_first_weights_are_numpys(device, model, init, scales):
    np.random.seed(4)
    expected = [scales[0] * np.random.randn(5, 4), scales[1] * np.random.randn(4, 3)]
    np.random.seed(4)
    network = model(5, [4], 3, weight_init_std=init)
    assert [*network.params] == ["W1", "b1", "W2", "b2"]
    for name, value in zip(("W1", "W2"), expected, strict=True):
        assert abs(asnumpy(network.params[name]) - value).max() < 1e-15
    assert_same(network.params["b1"], np.zeros(4))


def plain_gradient(params, x, t, decay, activation="relu"):
    """Loss and gradients of one hidden layer, in NumPy."""
    W1, b1, W2, b2 = (params[name] for name in ("W1", "b1", "W2", "b2"))
    a = x @ W1 + b1
    h = np.maximum(a, 0) if activation == "relu" else 1 / (1 + np.exp(-a))
    y = np.exp(h @ W2 + b2)
    y /= y.sum(axis=1, keepdims=True)
    loss = -np.log(y[np.arange(len(x)), t] + 1e-7).mean() + decay / 2 * ((W1**2).sum() + (W2**2).sum())
    dy = (y - np.eye(y.shape[1])[t]) / len(x)
    da = dy @ W2.T * ((a > 0) if activation == "relu" else h * (1 - h))
    return loss, {"W1": x.T @ da + decay * W1, "b1": da.sum(0), "W2": h.T @ dy + decay * W2, "b2": dy.sum(0)}


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("decay", [0, 0.1])
def test_loss_and_gradient(device, activation, decay):
    x, t = samples()
    network = MultiLayerNet(5, [4], 3, activation=activation, weight_decay_lambda=decay)
    host = {name: asnumpy(array) for name, array in network.params.items()}
    loss, grads = plain_gradient(host, asnumpy(x).astype("float64"), asnumpy(t), decay, activation)
    one_hot = xp.eye(3)[t]
    for labels in (t, one_hot, t.reshape(-1, 1)):
        assert abs(float(network.loss(x, labels)) - loss) < 1e-13
        found = network.gradient(x, labels)
        assert set(found) == set(grads)
        for name in grads:
            assert abs(asnumpy(found[name]) - grads[name]).max() < 1e-13
    right = (asnumpy(network.predict(x)).argmax(axis=1) == asnumpy(t)).mean()
    assert network.accuracy(x, t) == network.accuracy(x, one_hot) == right


@pytest.mark.parametrize("options", [{}, {"use_batchnorm": True, "weight_decay_lambda": 0.1}])
def test_numerical_gradients_agree(device, options):
    x, t = samples(12, 3)
    network = MultiLayerNetExtend(3, [3], 3, activation="sigmoid", **options)
    backward, numerical = network.gradient(x, t), network.numerical_gradient(x, t)
    by_layer = ["W1", "b1", *(["gamma1", "beta1"] if options else []), "W2", "b2"]
    assert [*backward] == [*numerical] == by_layer
    for name in backward:
        assert abs(asnumpy(backward[name] - numerical[name])).max() < 1e-6


def test_layers_of_the_extended_network():
    network = MultiLayerNetExtend(5, [4, 3], 2, use_dropout=True, dropout_ration=0.25, use_batchnorm=True)
    assert [*network.layers] == [
        *("Affine1", "BatchNorm1", "Activation_function1", "Dropout1"),
        *("Affine2", "BatchNorm2", "Activation_function2", "Dropout2", "Affine3"),
    ]
    assert network.layers["Dropout1"].dropout_ratio == 0.25
    assert [*network.params][-4:] == ["gamma1", "beta1", "gamma2", "beta2"]
    plain = MultiLayerNetExtend(5, [4], 2)
    assert not hasattr(plain.layers, "Dropout1")


def test_dropout_and_normalization_only_in_training(device):
    """``predict`` and ``loss`` are those of evaluation unless told otherwise."""
    x, t = samples()
    network = MultiLayerNetExtend(5, [40], 3, use_dropout=True, use_batchnorm=True)
    assert_same(network.predict(x), network.predict(x))
    assert float(network.loss(x, t)) == float(network.loss(x, t))
    before = asnumpy(network.predict(x))
    assert abs(asnumpy(network.predict(x, train_flg=True)) - before).max() > 1e-3


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown activation 'tanh'"):
        MultiLayerNet(2, [2], 2, activation="tanh")
    with pytest.raises(ValueError, match="unknown weight_init_std 'lecun'"):
        MultiLayerNet(2, [2], 2, weight_init_std="lecun")
    x, t = samples()
    with pytest.raises(ValueError, match="unknown optimizer 'lion': expected one of sgd, "):
        Trainer(None, x, t, x, t, optimizer="lion")


# -- Trainer --------------------------------------------------------------------------------------------------------


def test_trainer_trains_as_the_book(device, capsys):
    """Batches of numpy.random, the loss after each step, accuracies after the first step of an epoch."""
    x, t = samples(20)
    np.random.seed(1)
    network = MultiLayerNet(5, [4], 3)
    params = {name: asnumpy(array).copy() for name, array in network.params.items()}
    run = Trainer(network, x, t, x[:9], t[:9], epochs=3, mini_batch_size=8, optimizer_param={"lr": 0.1})
    run.train()
    printed = capsys.readouterr().out

    np.random.seed(1)
    np.random.randn(5, 4), np.random.randn(4, 3)
    host_x, host_t, losses = asnumpy(x).astype("float64"), asnumpy(t), []
    for _ in range(7):  # int(3 · 20 / 8)
        batch = np.random.choice(20, 8)
        _, grads = plain_gradient(params, host_x[batch], host_t[batch], 0)
        for name in params:
            params[name] -= 0.1 * grads[name]
        losses.append(plain_gradient(params, host_x[batch], host_t[batch], 0)[0])
    assert np.abs(np.array([float(loss) for loss in run.train_loss_list]) - losses).max() < 1e-13
    for name in params:
        assert abs(asnumpy(network.params[name]) - params[name]).max() < 1e-13
    # 20 / 8 = 2.5 steps an epoch: i % 2.5 is 0 at steps 0 and 5
    assert len(run.train_acc_list) == len(run.test_acc_list) == run.current_epoch == 2
    lines = printed.splitlines()
    assert re.fullmatch(r"train loss:\d\.\d+", lines[0])
    assert re.fullmatch(r"=== epoch:1, train acc:0\.\d+, test acc:[01]\.\d+ ===", lines[1])
    assert lines[-2] == "=============== Final Test Accuracy ==============="
    assert lines[-1] == f"test acc:{network.accuracy(x[:9], t[:9])}"


def test_trainer_is_quiet_and_measures_a_part(capsys):
    class Counting:
        params = {"W": np.zeros(1)}  # noqa: RUF012
        measured = []  # noqa: RUF012

        def gradient(self, x, t):
            return {"W": np.ones(1)}

        def loss(self, x, t):
            return 0.5

        def accuracy(self, x, t):
            self.measured.append(len(x))
            return 1.0

    x, t = samples(20)
    x, t = asnumpy(x), asnumpy(t)
    Trainer(Counting(), x, t, x[:9], t[:9], 1, 10, "Adam", {"lr": 0.1}, 4, False).train()
    assert Counting.measured == [4, 4, 9]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["SGD", "momentum", "Nesterov", "ADAGRAD", "rmsprop", "Adam"])
def test_every_optimizer_by_name(device, name):
    x, t = samples(60)
    np.random.seed(0)
    network = MultiLayerNet(5, [8], 3)
    before = float(network.loss(x, t))
    Trainer(network, x, t, x, t, 5, 20, name, {"lr": 0.02}, verbose=False).train()
    assert float(network.loss(x, t)) < before


# -- util -----------------------------------------------------------------------------------------------------------


def test_smooth_curve(device):
    """Each value is a mean of eleven, weighted by a Kaiser window of β = 2; mirrored ends, the last number twice."""
    values = np.random.default_rng(0).random(14)
    ratio = [np.i0(2 * math.sqrt(1 - (2 * k / 10 - 1) ** 2)) for k in range(11)]
    mirrored = [values[abs(i) if i < 14 else 27 - i] for i in range(-5, 19)]
    expected = [sum(w * mirrored[i + k] for k, w in enumerate(ratio)) / sum(ratio) for i in range(14)]
    for given in (values, list(values), asarray(values), [asarray(value) for value in values]):
        smooth = smooth_curve(given)
        assert isinstance(smooth, np.ndarray) == isinstance(given, (list, np.ndarray))
        assert abs(asnumpy(smooth) - expected).max() < 1e-14
    with pytest.raises(ValueError, match="at least 11"):
        smooth_curve([1.0] * 10)


@pytest.mark.parametrize("shape", [(6, 3), (6, 1, 2, 2), (6,)])
def test_shuffle_dataset(device, shape):
    """The order is numpy.random.permutation's, the same for samples and labels."""
    x, t = asarray(np.arange(math.prod(shape)).reshape(shape)), asarray(np.arange(6))
    np.random.seed(2)
    order = np.random.permutation(6)
    np.random.seed(2)
    shuffled, labels = shuffle_dataset(x, t)
    assert_same(labels, order)
    assert_same(shuffled, asnumpy(x)[order])
    with pytest.raises(ValueError, match="6 samples and 5 labels"):
        shuffle_dataset(x, t[:5])


def test_conv_output_size():
    assert conv_output_size(28, 5, stride=1, pad=2) == 28.0
    assert conv_output_size(7, 3, 2) == 3.0
    assert conv_output_size(7, 4, 2) == 2.5


def test_os_is_os():
    assert trainer.os is os
