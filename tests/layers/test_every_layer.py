"""No layer is left out of the contract; and all layers together, as book code uses them."""

import inspect
import runpy
from pathlib import Path

import pytest

import backend
import layers
from backend import asnumpy, xp
from kernels.core.layout import is_channels_last
from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePooling,
    LeakyRelu,
    Pooling,
    Relu,
    Residual,
    Sequential,
    SoftmaxWithLoss,
)
from tests.support.checks import check_gradient, frozen, normal


def test_every_layer_is_under_the_contract():
    exported = (getattr(layers, name) for name in layers.__all__)
    kinds = {kind for kind in exported if inspect.isclass(kind) and issubclass(kind, layers.Layer)} - {
        layers.Layer,
        layers.Loss,
    }
    covered = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        if path.name != Path(__file__).name:
            module = runpy.run_path(str(path))
            assert ("CASES" in module) == ("TestContract" in module), path.name
            covered |= {type(case.layer()) for case in module.get("CASES", ())}
    assert {kind.__name__ for kind in kinds - covered} == set()


def test_every_name_is_what_it_says():
    """A module of the same name would hide a function: ``from layers import softmax`` must be callable."""
    for name in layers.__all__:
        assert callable(getattr(layers, name)), name


class BookNetwork:
    """As chapter 7.5 writes a SimpleConvNet: layers in a dict, parameters and gradients taken from their attributes."""

    def __init__(self, dtype):
        self.layers = {
            "Conv1": Convolution.of(1, 3, 3, stride=1, pad=1, dtype=dtype),
            "Norm1": BatchNormalization(
                xp.ones(3, dtype), xp.zeros(3, dtype), 0.9, running_mean=None, running_var=None
            ),
            "Relu1": Relu(),
            "Pool1": Pooling(pool_h=2, pool_w=2, stride=2),
            "Dropout1": Dropout(0.5),
            "Affine1": Affine.of(3 * 3 * 3, 4, dtype=dtype),
        }
        self.last_layer = SoftmaxWithLoss()

    def predict(self, x, train_flg=False):
        for layer in self.layers.values():
            x = layer.train(train_flg).forward(x)
        return x

    def gradient(self, x, t):
        loss = self.last_layer.forward(self.predict(x, train_flg=True), t)
        dout = self.last_layer.backward(1)
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        conv, norm, affine = (self.layers[name] for name in ("Conv1", "Norm1", "Affine1"))
        gradients = [conv.dW, conv.db, norm.dgamma, norm.dbeta, affine.dW, affine.db]
        return loss, [*gradients, dout]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_network_keeps_its_dtype(device, dtype):
    """The book's im2col, BatchNormalization and Dropout turn a float32 network into float64 ones."""
    network, x = BookNetwork(dtype), normal((5, 1, 6, 6), dtype)
    with frozen(x):
        loss, gradients = network.gradient(x, xp.asarray([0, 1, 2, 3, 0]))
    assert loss.dtype == ("float64" if dtype == "float64" else "float32")
    assert {array.dtype.name for array in gradients} == {dtype}
    assert [array.shape for array in gradients] == [(3, 1, 3, 3), (3,), (3,), (3,), (27, 4), (4,), x.shape]
    assert network.predict(x).dtype == dtype


def test_learning_lowers_the_loss(device):
    """Ten steps of plain gradient descent on one batch, masks held."""
    network, x, t = BookNetwork("float32"), normal((5, 1, 6, 6)), xp.asarray([0, 1, 2, 3, 0])
    losses = []
    for _ in range(10):
        backend.random.seed(1)
        loss, _ = network.gradient(x, t)
        losses.append(float(loss))
        for layer in network.layers.values():
            for name, array in layer.params.items():
                array -= 0.1 * layer.grads[name]
    assert losses[-1] < losses[0] / 2


def image_layers():
    return [
        Convolution.of(2, 4, 3, pad=1, dtype="float64"),
        BatchNormalization.of(4, dtype="float64"),
        LeakyRelu(0.1),
        Residual(Convolution.of(4, 4, 3, pad=1, dtype="float64")),
        Pooling(2, 2, stride=2),
    ]


def test_images_stay_channels_last(device):
    """From layer to layer no layout is lost: each output goes on as it is."""
    y, made = xp.ascontiguousarray(normal((2, 2, 6, 4), "float64")), image_layers()
    for layer in made:
        y = layer.forward(y)
        assert is_channels_last(y), layer
    dout = xp.ascontiguousarray(normal(y.shape, "float64"))
    for layer in reversed(made):
        dout = layer.backward(dout)
        assert is_channels_last(dout), layer


def test_gradient_of_a_deep_network(device):
    """The whole of it, loss included, in float64."""
    head = [GlobalAveragePooling(), Flatten(), Affine.of(4, 3, dtype="float64")]
    network = Sequential(*image_layers(), *head)
    loss, x, t = SoftmaxWithLoss(), normal((3, 2, 6, 4), "float64"), xp.asarray([2, 0, 1])

    def total(x, weight):
        network["Convolution1"].W = weight
        return float(loss.forward(network.forward(x), t))

    weight = network["Convolution1"].W
    total(x, weight)
    dx = network.backward(loss.backward())
    check_gradient(total, [x, weight], [dx, network.grads["Convolution1.W"].copy()])


def test_the_same_seed_gives_the_same_bits(device):
    seen = []
    for _ in range(2):
        backend.random.seed(4)
        network = BookNetwork("float32")
        loss, gradients = network.gradient(normal((5, 1, 6, 6)), xp.asarray([0, 1, 2, 3, 0]))
        seen.append([asnumpy(array).tobytes() for array in (loss, *gradients)])
    assert seen[0] == seen[1]


def test_dropped_pixels_get_no_gradient(device):
    """Through ReLU, pooling and dropout alike."""
    x = xp.full((1, 1, 4, 4), -1, "float32")
    network = Sequential(Relu(), Pooling(2, 2, stride=2), Dropout(0.5))
    network.forward(x)
    assert float(abs(network.backward(xp.ones((1, 1, 2, 2), "float32"))).sum()) == 0
