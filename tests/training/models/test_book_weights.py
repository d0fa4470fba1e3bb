"""Weights that the book's own code trained, in our networks: the counts were computed in float64 elsewhere."""

import numpy as np
import pytest

from training.data import load
from training.models import DeepConvNet, MultiLayerNet, SimpleConvNet

NETWORKS = {
    "simple_convnet": (lambda dtype: SimpleConvNet(dtype=dtype), 9600),
    "deep_convnet": (lambda dtype: DeepConvNet(dtype=dtype), 9797),
    "two_hidden_layer_mlp": (lambda dtype: MultiLayerNet(784, [50, 100], 10, activation="sigmoid", dtype=dtype), 9352),
}


@pytest.mark.data
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_classify_as_many_as_in_the_book_s_code(data_dir, name, dtype):
    make, correct = NETWORKS[name]
    network = make(dtype)
    network.load_params(data_dir / "book" / f"{name}.npz")
    mnist = load("mnist", data_dir)
    x = mnist.test_images.reshape(-1, *network.input_dim).astype(dtype) / np.asarray(255, dtype)
    assert len(x) == 10_000
    assert x.dtype == dtype
    assert x.max() == 1
    assert round(network.accuracy(x, mnist.test_labels) * 10_000) == correct
