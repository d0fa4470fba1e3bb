"""Frozen layers, parameter groups, dotted names, and loading a part of a file."""

import copy
import pickle
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest

import backend
from backend import asnumpy
from backend.recording import Recorder
from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    Flatten,
    Layer,
    LayerNormalization,
    Relu,
    Residual,
    Sequential,
    parameter,
)
from training.data import Loader
from training.loop.non_finite import last_gradient
from training.loop.trainer import Trainer
from training.models import Network, TwoLayerNet
from training.optim import NAMES, LossScaler, Update, by_name
from training.optim.optimizers import SGD, Adam, AdamW


class Scale(Layer):
    """A layer of one's own, which knows nothing of frozen parameters."""

    k, dk = parameter()

    def __init__(self, k):
        self.k = k

    def forward(self, x):
        return self.save(x * self.k, x)

    def backward(self, dout):
        (x,) = self.saved(dout)
        self.gradient("k")[...] = (dout * x).sum(axis=0)
        return dout * self.k


def images(dtype="float32"):
    backend.random.seed(5)
    body = Sequential(Convolution.of(4, 4, 3, pad=1), BatchNormalization.of(4), Relu())
    layers = Sequential(
        Convolution.of(2, 4, 3, pad=1), BatchNormalization.of(4), Relu(), Residual(body), Flatten(),
        LayerNormalization.of(64), Affine.of(64, 6), Relu(), Affine.of(6, 3),
    )  # fmt: skip
    return Network(layers, (2, 4, 4)).astype(dtype)


def batch(n=6, dtype="float32"):
    x = np.random.default_rng(0).normal(size=(n, 2, 4, 4)).astype(dtype)
    return backend.asarray(x), backend.asarray(np.arange(n, dtype="int32") % 3)


def everything(network):
    return {name: asnumpy(array).copy() for name, array in {**network.params, **network.state}.items()}


PATTERNS = ["Convolution1", "Residual1", "Residual1.body.*", "*Normalization*", "Affine?", "Affine1"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("optimizer", NAMES)
def test_what_is_frozen_stays_and_the_rest_learns(device, pattern, optimizer):
    """Weight decay and momentum, too, leave frozen parameters alone."""
    if device.kind == "cuda" and optimizer not in ("sgd", "adamw"):
        return  # every optimizer has one mechanism
    network = images()
    network.freeze(pattern)
    before, frozen = everything(network), network.params.frozen
    assert frozen
    update = Update(by_name(optimizer, 0.1, 0.1), clip_norm=10.0)
    for _ in range(3):
        network.step_gradients(*batch())
        update.step(network.params, network.grads)
    after = everything(network)
    for name in network.params:
        assert (after[name].tobytes() == before[name].tobytes()) == (name in frozen), name
    statistics = {name: place for place, name, _ in network.named_arrays() if name in network.state}
    places = {name: place for place, name, _ in network.named_arrays()}
    frozen_places = {places[name] for name in frozen}
    for name, place in statistics.items():
        assert (after[name].tobytes() == before[name].tobytes()) == (place in frozen_places), name
    network.unfreeze(pattern)
    assert not network.params.frozen


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_gradients_of_what_learns_are_those_without_freezing(device, dtype):
    """To the bit, but for batch normalization, which is frozen in none of these; and 0 for what is frozen."""
    whole = images(dtype).gradient(*batch(dtype=dtype))
    for pattern in ("Convolution1", "Affine1", "Residual1.body.Convolution1", "LayerNormalization1"):
        part = images(dtype).freeze(pattern)
        found = part.gradient(*batch(dtype=dtype))
        for name in whole:
            expected = np.zeros_like(asnumpy(whole[name])) if name in part.params.frozen else asnumpy(whole[name])
            assert asnumpy(found[name]).tobytes() == expected.tobytes(), (pattern, name)


def test_frozen_layers_cost_no_gradient_work(device):
    """Nothing before the first layer that learns runs backward, and that one makes no gradient of its input."""
    network = images()
    network.gradient(*batch())
    network.freeze("Convolution*", "BatchNormalization*", "Residual1", "LayerNormalization1")
    with Recorder() as recorder:
        network.step_gradients(*batch())
    seen = Counter(event.name for event in recorder.events if event.kind == "layer" and event.category == "backward")
    assert set(seen) - {"Relu2"} == {"Affine1", "Affine2", "loss"}  # the Relu is fused on some devices
    names = [event.name for event in recorder.events]
    assert not any("convolution_backward" in name for name in names)
    assert network.layers["Affine1"].input_gradient is False
    network.unfreeze()
    assert network.layers["Affine1"].input_gradient is True
    assert network.layers[0].input_gradient is False
    with Recorder() as recorder:
        network.step_gradients(*batch())
    assert any("convolution_backward" in event.name for event in recorder.events)


def test_all_may_be_frozen(device):
    network = images().freeze("*")
    before = everything(network)
    optimizer = Adam()
    network.step_gradients(*batch())
    optimizer.update(network.params, network.grads)
    assert {name: array.tobytes() for name, array in everything(network).items()} == {
        name: array.tobytes() for name, array in before.items()
    }
    assert last_gradient(network) is None


def test_a_layer_of_ones_own_is_frozen_too(device):
    scale = Scale(backend.xp.full(4, 2, "float32"))
    network = Network(Sequential(scale, Affine.of(4, 3), Relu(), Affine.of(3, 2)), (4,))
    network.freeze("Scale1")
    x = backend.asarray(np.ones((3, 4), "float32"))
    t = backend.asarray(np.array([0, 1, 1]))
    network.freeze("Scale1", "Affine1").unfreeze("Affine1")
    gradients = network.gradient(x, t)
    assert not asnumpy(gradients["k1"]).any()
    both = Network(Sequential(Affine.of(4, 4), Scale(backend.xp.ones(4, "float32")), Affine.of(4, 2)), (4,))
    both.freeze("Scale1")
    assert not asnumpy(both.gradient(x, t)["k1"]).any()
    assert asnumpy(both.grads["W1"]).any()


@pytest.mark.parametrize("kind", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_are_frozen_alike(kind):
    network = images().freeze("Convolution1", "BatchNormalization1")
    twin = kind(network)
    assert twin.params.frozen == network.params.frozen
    assert not twin.gradient(*batch())["W1"].any()
    assert len(twin.layers.backward_steps) == len(network.layers.backward_steps)
    assert images().astype("float64").freeze("Affine1").astype("float32").params.frozen == {"W3", "b3"}


def test_unknown_layers_are_refused_by_name():
    network = images()
    with pytest.raises(ValueError, match="no layer is called 'Conv1'; there are Convolution1, BatchNormalization1"):
        network.freeze("Affine1", "Conv1")
    assert not network.params.frozen
    with pytest.raises(TypeError, match=r"pattern must be a layer's name, .*got 3"):
        network.freeze(3)


def test_a_transposed_convolution_is_frozen():
    layer = ConvolutionTranspose.of(2, 3, 2)
    layer.frozen = True
    layer.forward(np.ones((1, 2, 3, 3), "float32"))
    layer.backward(np.ones((1, 3, 4, 4), "float32"))
    assert layer.grads == {}


def data():
    x = np.random.default_rng(1).normal(size=(48, 2, 4, 4)).astype("float32")
    return Loader(x, np.arange(48) % 3, 12, seed=2)


@pytest.mark.parametrize("graph", [False, True])
def test_training_goes_on_as_layers_are_unfrozen(device, graph):
    """On a GPU by graphs as well: a step is captured anew."""
    network = images().freeze("Convolution*", "BatchNormalization*", "Residual1")
    before = everything(network)
    run = Trainer(network, data(), data(), Adam(lr=0.01), epochs=2, graph=graph)
    epochs = run.epochs()
    next(epochs)
    middle = everything(network)
    assert (middle["W1"] == before["W1"]).all()
    assert (middle["running_mean1"] == before["running_mean1"]).all()
    assert (middle["W3"] != before["W3"]).any()
    network.unfreeze("Convolution1")
    next(epochs)
    after = everything(network)
    assert (after["W1"] != middle["W1"]).any()
    assert (after["W2"] == middle["W2"]).all()


# -- groups -----------------------------------------------------------------------------------------------------------


def plain(network):
    """Return parameters and gradients in ordinary dictionaries: the path without a flat buffer."""
    return ({name: array.copy() for name, array in arrays.items()} for arrays in (network.params, network.grads))


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_group_is_an_optimizer_of_its_own(device, optimizer, scaled):
    """Parameters of a group go as under an optimizer with its rate and decay; flat or not, to the same bits."""
    if device.kind == "cuda" and optimizer not in ("momentum", "adamw"):
        return
    grouped, other = images(), images()
    rate = 0.025
    first = by_name(optimizer, 0.1, 0.1).group("Convolution1", lr=rate, weight_decay=0).group("W4", weight_decay=0.5)
    optimizers = {"rest": by_name(optimizer, 0.1, 0.1), "c": by_name(optimizer, rate, 0.0)}
    optimizers["w"] = by_name(optimizer, 0.1, 0.5)
    members = {"c": ["W1", "b1"], "w": ["W4"]}
    members["rest"] = [name for name in other.params if name not in members["c"] + members["w"]]
    apart = by_name(optimizer, 0.1, 0.1).group("[Wb]1", lr=rate, weight_decay=0).group("W4", weight_decay=0.5)
    scalers = [LossScaler(2.0**3) if scaled else None for _ in range(2)]
    separate = None
    for _ in range(3):
        scale = 1.0 if scalers[0] is None else scalers[0].scale
        grouped.step_gradients(*batch(), scale)
        other.step_gradients(*batch(), scale)
        if separate is None:
            separate, _ = plain(other)
        _, gradients = plain(other)
        pairs = zip(scalers, (grouped, other), strict=True)
        controls = [None if scaler is None else scaler.examine(network.grads) for scaler, network in pairs]
        first.update(grouped.params, grouped.grads, controls[0])
        apart.update(separate, gradients, controls[1])
        for name, single in optimizers.items():
            parts = ({key: arrays[key] for key in members[name]} for arrays in (other.params, other.grads))
            single.update(*parts, controls[1])
        for name in grouped.params:
            assert asnumpy(grouped.params[name]).tobytes() == asnumpy(other.params[name]).tobytes(), name
            assert asnumpy(separate[name]).tobytes() == asnumpy(other.params[name]).tobytes(), name


def test_a_schedule_scales_the_rate_of_a_group(device):
    network = TwoLayerNet(2, 2, 2)
    update = Update(SGD(lr=1.0).group("Affine2", lr=0.25), schedule=lambda step: 0.5)
    before = everything(network)
    network.grads.flat[...] = 1
    update.step(network.params, network.grads)
    moved = {name: float((before[name] - asnumpy(network.params[name])).max()) for name in before}
    assert moved == pytest.approx({"W1": 0.5, "b1": 0.5, "W2": 0.125, "b2": 0.125}, rel=1e-6)


def test_groups_in_words():
    network = TwoLayerNet(2, 2, 2)
    with pytest.raises(ValueError, match=r"group 'Conv' matches no parameter; there are Affine1.W, Affine1.b"):
        SGD().group("Conv", lr=0.1).update(network.params, network.grads)
    with pytest.raises(ValueError, match="a group's lr is kept as a factor of the optimizer's, which is 0"):
        SGD(lr=0).group("W1", lr=0.1)
    with pytest.raises(ValueError, match="weight_decay must be a finite number, at least 0, got -1"):
        SGD().group("W1", weight_decay=-1)
    with pytest.raises(TypeError, match="pattern must be a pattern of parameters' names"):
        SGD().group(1)


def test_groups_stay_with_copies_and_with_a_loaded_state():
    network = images()
    first = AdamW(lr=0.1).group("Affine*", lr=0.01)
    network.gradient(*batch())
    first.update(network.params, network.grads)
    twin = copy.deepcopy(first)
    assert twin.groups == first.groups
    loaded = AdamW(lr=0.1).group("Affine*", lr=0.01)
    loaded.load_state_dict(first.state_dict())
    others = [copy.deepcopy(network) for _ in range(2)]
    for optimizer, net in zip((first, twin, loaded), (network, *others), strict=True):
        net.step_gradients(*batch())
        optimizer.update(net.params, net.grads)
        assert net.params.flat.tobytes() == network.params.flat.tobytes()


# -- names, and parts of files ----------------------------------------------------------------------------------------


def test_arrays_have_two_names():
    network = images()
    params = network.params
    assert params["Convolution1.W"] is params["W1"]
    assert params["Residual1.body.Convolution1.b"] is params["b2"]
    assert "Affine2.W" in params
    assert "Affine3.W" not in params
    assert params.get("Affine2.b") is params["b4"]
    assert params.get("Affine9.b") is None
    params["Affine2.b"] = np.arange(3)
    params.update({"Affine2.W": np.ones((6, 3))})
    assert params["b4"].tolist() == [0, 1, 2]
    assert (params["W4"] == 1).all()
    norms = ["gamma1", "beta1", "W2", "b2", "gamma2", "beta2", "gamma3", "beta3"]
    assert list(params) == ["W1", "b1", *norms, "W3", "b3", "W4", "b4"]
    with pytest.raises(KeyError, match=r"Affine3.W"):
        params["Affine3.W"]
    with pytest.raises(KeyError, match="no parameter 'x'"):
        params["x"] = np.ones(2)
    assert network.gradient(*batch())["Affine2.W"].shape == (6, 3)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_part_of_another_networks_file(tmp_path, suffix):
    """The front of a network, with its statistics; the head has another size."""
    old, new = images(), images()
    old.predict(batch()[0], train_flg=True)
    for array in old.params.values():
        array += 1
    old.save_params(tmp_path / f"a.{suffix}")
    backend.random.seed(8)
    head = Network(Sequential(*list(images().layers.layers.values())[:-1], Affine.of(6, 5)), (2, 4, 4))
    before = everything(head)
    with pytest.raises(ValueError, match=r"expected W4 of \(6, 5\), got \(6, 3\)"):
        head.load_params(tmp_path / f"a.{suffix}")
    head.load_params(tmp_path / f"a.{suffix}", only="*Normalization*")
    after, wanted = everything(head), everything(old)
    for name in after:
        loaded = name.startswith(("gamma", "beta", "running"))
        assert after[name].tobytes() == (wanted if loaded else before)[name].tobytes(), name
    head.load_params(tmp_path / f"a.{suffix}", only="Convolution1")
    assert (everything(head)["W1"] == wanted["W1"]).all()
    assert (everything(head)["W2"] == before["W2"]).all()
    with pytest.raises(ValueError, match=r"no parameter matches 'Convolution9'; there are Convolution1.W"):
        new.load_params(tmp_path / f"a.{suffix}", only="Convolution9")
    TwoLayerNet(2, 2, 2).save_params(tmp_path / f"b.{suffix}")
    with pytest.raises(ValueError, match="missing parameters: 'W4', 'b4'"):
        new.load_params(tmp_path / f"b.{suffix}", only="Affine2")


def test_dropout_is_not_frozen():
    network = Network(Sequential(Affine.of(4, 50), Dropout(0.5), Affine.of(50, 2)), (4,)).freeze("Affine1", "Dropout1")
    x = np.ones((1, 4), "float32")
    assert (network.predict(x, train_flg=True) != network.predict(x, train_flg=True)).any()


def test_a_notebook_shows_the_layers():
    """Well-formed, escaped, with the frozen layers marked."""
    network = images().freeze("Convolution1")
    layers = Sequential({"<b>one</b>": Affine.of(4, 3), "two": Relu()})
    table = ElementTree.fromstring(network._repr_html_())
    rows = [[cell.text or "" for cell in row] for row in table.iter("tr")]
    assert rows[0] == ["layer", "type", "output", "parameters"]
    assert rows[1] == ["Convolution1 (frozen)", "Convolution(2 → 4, kernel 3x3, padding 1)", "4 x 4 x 4", "76"]
    assert rows[4][:1] + rows[4][2:] == ["Residual1", "4 x 4 x 4", "156"]
    assert rows[-1] == ["Affine2", "Affine(6 → 3)", "3", "21"]
    assert table.find("caption").text.endswith("parameters, SoftmaxWithLoss()")
    assert "<b>" not in Network(layers, (4,))._repr_html_()
