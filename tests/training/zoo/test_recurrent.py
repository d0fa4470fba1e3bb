"""Networks that predict the next character."""

import numpy as np
import pytest

from backend import asarray, random
from layers import GRU, LSTM, RNN, Affine, Dropout, Embedding, Flatten, Sequential, SoftmaxWithLoss
from training.data.batches import Batches
from training.loop.trainer import Trainer
from training.models import Network
from training.models.bound_layers import BoundLayers
from training.models.loading import load_network
from training.optim.optimizers import Adam
from training.zoo import CHARACTER_NETWORKS
from training.zoo.recurrent import char_lstm

CELLS = {"CharRNN": (RNN, 1), "CharLSTM": (LSTM, 4), "CharGRU": (GRU, 3)}


@pytest.mark.parametrize("name", CELLS)
def test_layers_and_numbers_of_parameters(device, name):
    kind, gates = CELLS[name]
    network = BoundLayers(CHARACTER_NETWORKS[name](11, size=4, hidden=6, depth=2))
    assert [type(layer) for layer in network.layers.layers.values()][1:3] == [kind, kind]
    cells = sum(gates * 6 * (inputs + 6 + 2) for inputs in (4, 6))
    assert network.params.flat.size == 11 * 4 + cells + 6 * 11 + 11
    assert network.layers.forward(asarray(np.zeros((3, 5), "uint8"))).shape == (3, 5, 11)


@pytest.mark.parametrize("name", CHARACTER_NETWORKS)
def test_a_text_that_repeats_itself_is_learned(device, name):
    """The second of two equal characters is known by those before it: no network without a memory of them learns it."""
    random.seed(0)
    heads = {"heads": 2} if name == "CharTransformer" else {}
    network = BoundLayers(CHARACTER_NETWORKS[name](2, 8, 16, depth=1, **heads))
    loss, optimizer = SoftmaxWithLoss(), Adam(0.02)
    pieces = asarray(np.array([[(place + start) // 2 % 2 for place in range(13)] for start in range(4)], "int32"))
    found = []
    for _ in range(80):
        found.append(float(loss.forward(network.layers.train().forward(pieces[:, :-1]), pieces[:, 1:])))
        network.layers.backward(loss.backward())
        optimizer.update(network.params, network.grads)
    assert found[0] > 0.5
    assert found[-1] < 0.1  # but the first of a piece cannot be known: log 2 / 12, of half of them


def test_dropout_is_behind_each_recurrent_layer():
    names = list(char_lstm(5, 3, 4, depth=2, dropout=0.25).layers)
    assert names == ["Embedding1", "LSTM1", "Dropout1", "LSTM2", "Dropout2", "PositionwiseAffine1"]
    dropout = char_lstm(5, dropout=0.25).layers["Dropout1"]
    assert isinstance(dropout, Dropout)
    assert (dropout.dropout_ratio, dropout.inverted) == (0.25, True)


def classifier():
    """Return a network of indices that ends in one row of numbers, with samples and labels."""
    random.seed(0)
    x = np.random.default_rng(0).integers(0, 5, (64, 6))
    return Network(Sequential(Embedding.of(5, 8), GRU.of(8, 16), Flatten(), Affine.of(96, 2)), (6,)), x, x[:, 0] // 3


def test_a_network_of_indices_comes_back_from_its_file(tmp_path):
    network, x, _ = classifier()
    network.save_params(tmp_path / "network.safetensors")
    again = load_network(tmp_path / "network.safetensors")
    assert repr(again) == repr(network)
    np.testing.assert_array_equal(again.predict(x), network.predict(x))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int16"])
def test_a_trainer_takes_indices(device, dtype):
    network, x, t = classifier()
    batches = Batches([(x.astype(dtype), t)])
    Trainer(network, batches, batches, Adam(0.02), epochs=60).train()
    assert network.accuracy(asarray(x), asarray(t)) > 0.95


def test_a_trainer_refuses_numbers_for_indices_in_words():
    network, x, t = classifier()
    before, batches = network.params.flat.copy(), Batches([(x.astype("float32"), t)])
    with pytest.raises(TypeError, match="Embedding needs x as indices of an integer dtype, got float32"):
        Trainer(network, batches, batches, Adam(0.01), epochs=1).train()
    np.testing.assert_array_equal(network.params.flat, before)


def test_a_trainer_takes_sequences_of_numbers(device):
    """Whether the first of six numbers is positive is known in the end by what the network remembers."""
    random.seed(0)
    x = np.random.default_rng(0).standard_normal((128, 6, 2), "float32")
    t = (x[:, 0, 0] > 0).astype("int64")
    batches = [(x[start : start + 32], t[start : start + 32]) for start in range(0, 128, 32)]
    network = Network(Sequential(LSTM.of(2, 16), Flatten(), Affine.of(96, 2)), (6, 2))
    Trainer(network, Batches(batches), Batches(batches), Adam(0.02), epochs=8).train()
    assert network.accuracy(asarray(x), asarray(t)) > 0.9


@pytest.mark.parametrize(("arguments", "words"), [
    ({"characters": 0}, "count must be a whole number"),
    ({"characters": 5, "hidden": 0}, "hidden must be a whole number"),
    ({"characters": 5, "depth": 0}, "depth must be a whole number"),
    ({"characters": 5, "dropout": 1.5}, "ratio"),
])  # fmt: skip
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        char_lstm(**arguments)
