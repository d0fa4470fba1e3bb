"""A program in the book's style: a network made of its layers, trained, saved, read and drawn."""

from collections import OrderedDict

import matplotlib as mpl
import numpy
import pytest

from backend import asnumpy, xp
from tests.support.checks import assert_same
from training.compat.book import np, pickle
from training.compat.book.gradient import numerical_gradient
from training.compat.book.layers import Affine, Convolution, Pooling, Relu, SoftmaxWithLoss
from training.compat.book.trainer import Trainer


class SmallConvNet:
    """Convolution, ReLU, pooling, affine; parameters drawn in the order of their names."""

    def __init__(self, filters=3, scale=0.1):
        self.params = {
            "W1": scale * np.random.randn(filters, 1, 3, 3),
            "b1": np.zeros(filters),
            "W2": scale * np.random.randn(filters * 4, 2),
            "b2": np.zeros(2),
        }
        self.layers = OrderedDict()
        self.layers["Conv1"] = Convolution(self.params["W1"], self.params["b1"], 1, 0)
        self.layers["Relu1"] = Relu()
        self.layers["Pool1"] = Pooling(pool_h=2, pool_w=2, stride=2)
        self.layers["Affine1"] = Affine(self.params["W2"], self.params["b2"])
        self.last_layer = SoftmaxWithLoss()

    def predict(self, x):
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        return self.last_layer.forward(self.predict(x), t)

    def accuracy(self, x, t):
        y = np.argmax(self.predict(x), axis=1)
        if t.ndim != 1:
            t = np.argmax(t, axis=1)
        return np.sum(y == t) / float(x.shape[0])

    def gradient(self, x, t):
        self.loss(x, t)
        dout = self.last_layer.backward(1)
        for layer in reversed(list(self.layers.values())):
            dout = layer.backward(dout)
        conv, affine = self.layers["Conv1"], self.layers["Affine1"]
        return {"W1": conv.dW, "b1": conv.db, "W2": affine.dW, "b2": affine.db}

    def numerical_gradient(self, x, t):
        return {key: numerical_gradient(lambda _: self.loss(x, t), value) for key, value in self.params.items()}

    def save_params(self, file_name):
        with open(file_name, "wb") as f:
            pickle.dump(dict(self.params.items()), f)

    def load_params(self, file_name):
        with open(file_name, "rb") as f:
            self.params.update(pickle.load(f))
        for index, name in enumerate(("Conv1", "Affine1"), start=1):
            self.layers[name].W = self.params[f"W{index}"]
            self.layers[name].b = self.params[f"b{index}"]


@pytest.fixture
def network(device):
    np.random.seed(0)
    return SmallConvNet()


def stripes(count):
    """Images (N, 1, 6, 6) with dark rows (class 0) or columns (class 1), and noise."""
    t = np.random.randint(0, 2, count)
    lines = np.array([[[1.0, 0.0] * 3] * 6], "float32")
    rows, columns = np.swapaxes(lines, 1, 2), lines
    x = np.where(t.reshape(-1, 1, 1) == 0, rows, columns) + 0.1 * np.random.rand(count, 6, 6)
    return x.reshape(count, 1, 6, 6), t


def test_gradients_agree_for_labels_in_a_column(network):
    """The book's check: one image, its label of shape (1, 1)."""
    x, t = np.random.rand(36).reshape((1, 1, 6, 6)), np.array([1]).reshape((1, 1))
    backward, numerical = network.gradient(x, t), network.numerical_gradient(x, t)
    for key in network.params:
        # the 1e-7 in the loss is no part of its gradient by backpropagation
        assert float(np.abs(backward[key] - numerical[key]).max()) < 1e-6


def test_training_saving_and_reading(network, tmp_path):
    (x, t), (x_test, t_test) = stripes(60), stripes(20)
    trainer = Trainer(
        network,
        x,
        t,
        x_test,
        t_test,
        epochs=8,
        mini_batch_size=20,
        optimizer="Adam",
        optimizer_param={"lr": 0.05},
        verbose=False,
    )
    trainer.train()
    assert len(trainer.train_loss_list) == 24
    assert float(network.accuracy(x_test, t_test)) == 1.0
    network.save_params(tmp_path / "params.pkl")
    other = SmallConvNet()
    other.load_params(tmp_path / "params.pkl")
    assert_same(other.predict(x_test), network.predict(x_test))
    # what a program writes into the parameters that it has read reaches the layers
    for param in other.params.values():
        param[...] = param.astype(np.float16)
    rounded = asnumpy(other.predict(x_test))
    assert 0 < abs(rounded - asnumpy(network.predict(x_test))).max() < 0.05
    other.params["W2"] *= 0
    assert_same(other.predict(x_test), numpy.tile(asnumpy(other.params["b2"]), (20, 1)))


def test_filters_and_losses_are_drawn(network, tmp_path):
    mpl.use("Agg")
    from training.compat.book import pyplot as plt

    x, t = stripes(20)
    losses = [network.loss(x[:5], t[:5]) for _ in range(3)]
    fig = plt.figure()
    for i, w in enumerate(network.params["W1"]):
        ax = fig.add_subplot(2, 3, i + 1, xticks=[], yticks=[])
        shown = ax.imshow(w[0], cmap=plt.cm.gray_r, interpolation="nearest").get_array()
        assert abs(numpy.asarray(shown) - asnumpy(network.params["W1"][i, 0])).max() == 0
    out = Convolution(network.params["W1"][:1], 0).forward(x[:1])
    fig.add_subplot(2, 3, 4).imshow(out.reshape(out.shape[2], out.shape[3]))
    (line,) = fig.add_subplot(2, 3, 5).plot(np.arange(3), losses, marker="o", markevery=2)
    assert line.get_ydata().tolist() == [float(losses[0])] * 3
    plt.savefig(tmp_path / "plot.png")
    plt.close("all")
    assert type(losses[0]) is type(xp.zeros(1).sum())
