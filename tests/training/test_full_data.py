"""Whole trainings on the full MNIST."""

import pytest

import backend
from training.data import Loader, load
from training.loop.trainer import Trainer
from training.models import TwoLayerNet
from training.optim.optimizers import SGD


@pytest.mark.data
def test_two_layer_net_reaches_0_965_in_17_epochs_of_plain_sgd(data_dir):
    mnist = load("mnist", data_dir)
    backend.random.seed(0)
    train = Loader(mnist.train_images.reshape(-1, 784), mnist.train_labels, 100)
    test = Loader(mnist.test_images.reshape(-1, 784), mnist.test_labels, 1000, shuffle=False)
    network = TwoLayerNet(784, 50, 10, weight_init_std=0.01)
    history = Trainer(network, train, test, SGD(0.1), epochs=17).train()
    assert len(history) == 17
    assert history[-1].test_accuracy >= 0.965
