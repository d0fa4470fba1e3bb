"""Networks between host and device: what is saved on one loads on the other, and what does not belong is refused."""

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy
from layers import Affine, BatchNormalization, Convolution, LayerNormalization, Relu, Sequential
from training.check.gradients import gradient_check
from training.data import Loader
from training.loop.trainer import Trainer
from training.models.accuracy import correct_count
from training.models.network import Network
from training.optim.clipping import clip_gradients, gradient_norm
from training.optim.optimizers import Adam

pytestmark = pytest.mark.gpu
PAIRS = pytest.mark.parametrize(("home", "away"), [("cpu", "cuda"), ("cuda", "cpu")])
REFUSAL = r"host and device arrays are mixed|does not lie on the active device"


def samples(count=12, dtype="float32"):
    rng = np.random.default_rng(2)
    return rng.random((count, 1, 8, 8)).astype(dtype), rng.integers(0, 3, count).astype("int32")


def network():
    backend.random.seed(4)
    layers = Sequential(
        Convolution.of(1, 4, 3),
        BatchNormalization.of(4),
        Relu(),
        Affine.of(144, 5),
        LayerNormalization.of(5),
        Affine.of(5, 3),
    )
    return Network(layers, (1, 8, 8))


def trained(device, steps=3):
    """A network and its optimizer after some steps on a device: running statistics and all have moved."""
    with backend.use(device):
        net, optimizer = network(), Adam()
        x, t = map(asarray, samples())
        for _ in range(steps):
            optimizer.update(net.params, net.gradient(x, t))
        return net, optimizer


def everything(net):
    return {name: asnumpy(array) for name, array in {**net.params, **net.state}.items()}


def assert_bits(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        assert np.array_equal(array, other[name]), name


def assert_on(device, *arrays):
    with backend.use(device):
        assert {type(array) for array in arrays} == {backend.xp.ndarray}


@PAIRS
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_what_is_saved_on_one_loads_on_the_other(tmp_path, home, away, suffix):
    net, _ = trained(home)
    file = tmp_path / f"params.{suffix}"
    net.save_params(file)
    with backend.use(away):
        other = network()
        other.load_params(file)
        assert_on(away, *other.params.values(), *other.state.values(), other.params.flat)
        assert_bits(everything(other), everything(net))
        assert any("running" in name for name in other.state)
        again = tmp_path / f"again.{suffix}"
        other.save_params(again)
    assert again.read_bytes() == file.read_bytes()


@PAIRS
def test_an_optimizer_goes_on_where_the_parameters_are(home, away):
    """Its state moves along at the next update: with a zero gradient Adam's averages only decay, as at home."""
    states = []
    for device in (home, away):
        net, optimizer = trained(home)
        moved = Adam()
        moved.load_state_dict(optimizer.state_dict())
        net.to(device)
        with backend.use(device):
            moved.update(net.params, {name: 0 * array for name, array in net.params.items()})
        assert_on(device, *moved.state["m"].values(), *moved.state["v"].values())
        assert moved.t == 4
        states.append({name: asnumpy(array) for name, array in moved.state_dict().items() if "." in name})
    assert_bits(*states)
    assert any(array.any() for array in states[0].values())


@PAIRS
def test_there_and_back(home, away):
    net, _ = trained(home)
    before, gradients = everything(net), {name: asnumpy(array) for name, array in net.grads.items()}
    assert any(array.any() for array in gradients.values())
    with backend.use(home):
        x, t = map(asarray, samples())
        scores = asnumpy(net.predict(x))
    assert net.to(away) is net
    assert_on(away, *net.params.values(), *net.grads.values(), *net.state.values(), net.params.flat, net.grads.flat)
    assert_bits(everything(net), before)
    with backend.use(away):
        assert np.allclose(asnumpy(net.predict(asarray(asnumpy(x)))), scores, rtol=1e-4, atol=1e-5)
    net.to(home)
    assert_on(home, *net.params.values(), *net.grads.values(), *net.state.values(), net.params.flat, net.grads.flat)
    assert_bits(everything(net), before)
    with backend.use(home):
        assert np.array_equal(asnumpy(net.predict(x)), scores)
        twin, _ = trained(home)
        assert np.array_equal(asnumpy(net.gradient(x, t).flat), asnumpy(twin.gradient(x, t).flat))


@PAIRS
def test_a_sequential_moves_with_all_its_layers(home, away):
    with backend.use(home):
        layers = network().layers
        before = {name: asnumpy(array) for name, array in {**layers.params, **layers.state}.items()}
    assert layers.to(away) is layers
    assert_on(away, *layers.params.values(), *layers.state.values())
    layers.to(home)
    assert_on(home, *layers.params.values(), *layers.state.values())
    assert_bits({name: asnumpy(array) for name, array in {**layers.params, **layers.state}.items()}, before)


CALLS = {
    "predict": lambda net, x, t, there: net.predict(there(x)),
    "loss, samples": lambda net, x, t, there: net.loss(there(x), t),
    "loss, labels": lambda net, x, t, there: net.loss(x, there(t)),
    "gradient, samples": lambda net, x, t, there: net.gradient(there(x), t),
    "gradient, labels": lambda net, x, t, there: net.gradient(x, there(t)),
    "gradient, both": lambda net, x, t, there: net.gradient(there(x), there(t)),
    "accuracy, samples": lambda net, x, t, there: net.accuracy(there(x), t),
    "accuracy, labels": lambda net, x, t, there: net.accuracy(x, there(t)),
    "backward": lambda net, x, t, there: net.layers.backward(there(net.predict(x, True))),
    "correct_count": lambda net, x, t, there: correct_count(net.predict(x), there(t)),
    "update": lambda net, x, t, there: Adam().update(net.params, {k: there(v) for k, v in net.grads.items()}),
    "update, one": lambda net, x, t, there: Adam().update(
        dict(net.params), {**net.grads, "b1": there(net.grads["b1"])}
    ),
    "gradient_norm": lambda net, x, t, there: gradient_norm({**net.grads, "b1": there(net.grads["b1"])}),
    "clip_gradients": lambda net, x, t, there: clip_gradients({**net.grads, "b1": there(net.grads["b1"])}, 1.0),
    "gradient_check, labels": lambda net, x, t, there: gradient_check(net, x, there(t)),
    "a parameter set": lambda net, x, t, there: setattr(net.layers[3], "W", there(net.layers[3].W)),
    "a gradient set": lambda net, x, t, there: setattr(net.layers[3], "dW", there(net.layers[3].dW)),
    "a layer made": lambda net, x, t, there: Affine(net.layers[3].W, there(net.layers[3].b)),
}


ON_EITHER = ("predict", "accuracy, samples", "accuracy, labels")
"""Calls that copy arrays from the host to a network on a GPU: what they mean is plain."""


@pytest.mark.gpu
def test_predictions_of_host_arrays_are_those_of_the_devices_own():
    net, _ = trained("cuda", steps=1)
    with backend.use("cuda"):
        x, t = samples()
        there = asarray(x), asarray(t)
        scores = net(x)
        assert_on("cuda", scores)
        assert_bits({"y": asnumpy(scores)}, {"y": asnumpy(net.predict(there[0]))})
        assert net.accuracy(x, t) == net.accuracy(*there) == net.accuracy(x, there[1]) == net.accuracy(there[0], t)
        with pytest.raises(TypeError, match=REFUSAL):
            net.predict(x, train_flg=True)


@PAIRS
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_lies_on_the_other_device_is_refused(call, home, away):
    net, _ = trained(home, steps=1)
    before, gradients = everything(net), asnumpy(net.grads.flat).copy()

    def there(array):
        with backend.use(away):
            return asarray(asnumpy(array))

    with backend.use(home):
        x, t = map(asarray, samples())
        name = next(name for name, each in CALLS.items() if each is call)
        if home == "cuda" and name in ON_EITHER:
            call(net, x, t, there)
        else:
            with pytest.raises(TypeError, match=REFUSAL):
                call(net, x, t, there)
        parameters = {name: array for name, array in everything(net).items() if name in net.params}
        assert_bits(parameters, {name: before[name] for name in parameters})
        assert np.array_equal(asnumpy(net.grads.flat), gradients)


@PAIRS
def test_a_network_that_was_left_on_another_device_is_refused(home, away):
    net, _ = trained(home, steps=1)
    with backend.use(away):
        x, t = map(asarray, samples())
        loader = Loader(*samples(), 4)
        trainer = Trainer(net, loader, loader, Adam(), epochs=1)
        for call in (lambda: net.predict(x), lambda: net.gradient(x, t), trainer.train):
            with pytest.raises(TypeError, match=REFUSAL):
                call()


@PAIRS
def test_what_moves_data_by_design(home, away):
    """Loaders, gradient_check's input and load_params bring arrays over, as they say."""
    with backend.use(away):
        images, labels = map(asarray, samples())
    with backend.use(home):
        net = network()
        x, t = next(iter(Loader(images, labels, 4, shuffle=False)))
        assert_on(home, x, t)
        assert np.array_equal(asnumpy(x), samples()[0][:4])
        gradient_check(net, images, asarray(samples()[1]), tolerance=1e-4)
