"""The classifier of the book's methods, over layers in a row."""

import copy
import pickle

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
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
    parameter,
)
from tests.support import oracles
from tests.support.checks import assert_close, assert_same, assert_separate
from training.models import ConvNet, DeepConvNet, Network, SimpleConvNet, TwoLayerNet
from training.optim.optimizers import SGD


def conv(filters, pad=1):
    return {"filter_num": filters, "filter_size": 3, "pad": pad, "stride": 1}


def normalised(dtype="float32"):
    """Convolutions, batch normalisations, a residual block and dropout: 3 classes of (1, 5, 6) images."""
    body = Sequential(
        Convolution.of(2, 2, 3, pad=1, dtype=dtype), BatchNormalization.of(2, dtype=dtype), Relu(), Dropout(0.25)
    )
    return Network(
        Sequential(
            Convolution.of(1, 2, 3, pad=1, dtype=dtype),
            BatchNormalization.of(2, dtype=dtype),
            Residual(body, Convolution.of(2, 2, 1, dtype=dtype)),
            Pooling(2, 2, stride=2),
            Affine.of(2 * 2 * 3, 4, "he", dtype),
            BatchNormalization.of(4, dtype=dtype),
            Dropout(0.25),
            Affine.of(4, 3, "he", dtype),
        ),
        (1, 5, 6),
    )


def batch(network, n=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *network.input_dim)).astype(network.params.flat.dtype)
    return backend.asarray(x), backend.asarray(rng.integers(0, network.classes, n).astype("int32"))


def one_hot(t, classes):
    return backend.asarray(np.eye(classes, dtype="float32")[asnumpy(t)])


def identity(classes, dtype="float32"):
    """A network whose scores are its input."""
    return Network(Sequential(Affine(xp.eye(classes, dtype=dtype), xp.zeros(classes, dtype))), (classes,))


def snapshot(arrays):
    return {name: asnumpy(array).copy() for name, array in arrays.items()}


def assert_unchanged(arrays, before):
    assert list(arrays) == list(before)
    for name, array in arrays.items():
        assert_same(array, before[name])


# -- names -------------------------------------------------------------------------------------------------


def test_names_of_the_book_numbered_by_kind():
    network = normalised()
    pairs = [("W1", "b1"), ("gamma1", "beta1"), ("W2", "b2"), ("gamma2", "beta2"), ("W3", "b3"), ("W4", "b4")]
    pairs += [("gamma3", "beta3"), ("W5", "b5")]
    assert list(network.params) == list(network.grads) == [name for pair in pairs for name in pair]
    assert list(network.state) == [f"running_{kind}{i}" for i in (1, 2, 3) for kind in ("mean", "var")]
    body = network.layers["Residual1"].body
    assert network.params["W2"] is body["Convolution1"].W
    assert network.params["gamma2"] is body["BatchNormalization1"].gamma
    assert network.params["W3"] is network.layers["Residual1"].shortcut.W
    assert network.state["running_var2"] is body["BatchNormalization1"].running_var
    dotted = "Residual1.body.BatchNormalization1.running_var"
    assert network.state[dotted] is network.state["running_var2"]
    assert (dotted in network.state, "running_var4" in network.state) == (True, False)
    assert network.state.get(dotted) is network.state["running_var2"]
    assert network.state.get("running_var4") is None
    with pytest.raises(KeyError, match="running_var4"):
        network.state["running_var4"]
    assert list(TwoLayerNet(4, 3, 2).params) == ["W1", "b1", "W2", "b2"]


def test_an_error_shows_a_long_list_in_brief():
    with pytest.raises(TypeError, match=r"x must be an array, got \[\[\[\[0\.5, .*…$") as raised:
        TwoLayerNet(4, 3, 2).predict(np.full((9, 9, 9, 9), 0.5).tolist())
    assert len(str(raised.value)) < 200


class Shift(Layer):
    """y = x + b."""

    b, db = parameter()

    def __init__(self, b):
        self.b = b

    def forward(self, x):
        return x + self.b

    def backward(self, dout):
        self.db = dout.sum(axis=0)
        return dout.copy()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_parameter_has_a_name_of_its_own(place):
    """A layer with a b and no W among those with both: no two may share a name, and so an array."""
    layers = [Affine.of(3, 3, "he", "float64"), Affine.of(3, 3, "he", "float64")]
    layers.insert(place, Shift(np.full(3, 0.5)))
    network = Network(Sequential(*layers), (3,))
    assert len(network.params) == 5
    assert network.params.flat.size == 3 + 12 + 12
    assert [float(layer.b[0]) for layer in layers] == [0.5 if i == place else 0.0 for i in range(3)]
    x, t = batch(network)
    numerical = network.numerical_gradient(x, t)
    for name, gradient in network.gradient(x, t).items():
        np.testing.assert_allclose(gradient, numerical[name], rtol=1e-6, atol=1e-8)


# -- predict, loss, accuracy -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predict_and_loss_of_a_two_layer_net(device, dtype):
    network = TwoLayerNet(6, 5, 4, weight_init_std=0.5, dtype=dtype)
    network.params["b1"] += 0.1
    network.params["b2"] -= 0.2
    x, t = batch(network, n=7)
    p = {name: asnumpy(array).astype("float64") for name, array in network.params.items()}
    hidden = np.maximum(asnumpy(x).astype("float64") @ p["W1"] + p["b1"], 0)
    scores = hidden @ p["W2"] + p["b2"]
    reach = (np.abs(asnumpy(x)) @ np.abs(p["W1"]) + np.abs(p["b1"])) @ np.abs(p["W2"]) + np.abs(p["b2"])
    assert_close(network.predict(x), scores, dtype, terms=6 + 5 + 2, magnitude=reach)
    expected = oracles.softmax_cross_entropy(scores, asnumpy(t))
    for labels in (t, one_hot(t, 4)):
        loss = network.loss(x, labels)
        assert loss.shape == ()
        assert backend.array_module(loss) is backend.array_module(x)
        # A loss moves by at most twice what the scores do, and is a mean of logarithms of sums of 4.
        assert_close(loss, expected, dtype, terms=4 + 2 * 13, magnitude=reach.max())


def test_evaluation_and_training_differ_where_they_should(device):
    network = normalised()
    x, t = batch(network, n=4)
    start, states = backend.random.default.state, snapshot(network.state)
    scores = network.predict(x)
    assert_same(network.predict(x), scores)
    assert float(network.loss(x, t, train_flg=False)) == float(network.last_layer.forward(scores, t))
    network.accuracy(x, t)
    assert backend.random.default.state == start
    assert_unchanged(network.state, states)

    trained = network.predict(x, train_flg=True)
    assert not np.allclose(asnumpy(trained), asnumpy(scores))
    assert backend.random.default.state != start
    moved = snapshot(network.state)
    assert all((moved[name] != states[name]).any() for name in states)
    backend.random.default.state = start
    loss = network.loss(x, t)  # as in a training step
    backend.random.default.state = start
    assert float(loss) == float(network.last_layer.forward(network.predict(x, train_flg=True), t))


def test_predict_and_loss_set_the_mode(device):
    network = normalised()
    x, t = batch(network, n=4)
    modes = [layer.training for layer in network.layers.layers.values()]
    network.numerical_gradient(x[:1], t[:1])
    assert [layer.training for layer in network.layers.layers.values()] == modes
    for call, mode in (
        (lambda: network.predict(x), False),
        (lambda: network.loss(x, t), True),
        (lambda: network.accuracy(x, t), False),
        (lambda: network.step_gradients(x, t), True),
        (lambda: network.loss(x, t, train_flg=False), False),
        (lambda: network.predict(x, True), True),
    ):
        call()
        assert {layer.training for layer in (network.layers, *network.layers.layers.values())} == {mode}
    with pytest.raises(TypeError, match="train_flg"):
        network.predict(x, None)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_accuracy_counts_every_sample_alike(device, batch_size):
    network = identity(4)
    n = 7
    for right in range(n) if device.kind == "cpu" else (0, 6):
        scores = np.zeros((n, 4), "float32")
        scores[np.arange(n), np.arange(n) % 4] = 1
        t = (np.arange(n) + 1) % 4
        t[right] = right % 4
        for labels in (t, t.astype("uint8"), np.eye(4)[t]):
            x, labels = backend.asarray(scores), backend.asarray(labels)
            found = network.accuracy(x, labels, batch_size=batch_size)
            assert type(found) is float
            assert found == 1 / n
    assert network.accuracy(x, backend.asarray(np.arange(n) % 4)) == 1


def test_accuracy_refuses_what_it_cannot_count():
    network = identity(3)
    x = np.eye(3, dtype="float32")
    with pytest.raises(ValueError, match="at least one sample"):
        network.accuracy(x[:0], np.zeros(0, int))
    for labels in (np.zeros(2, int), np.zeros(4, int), np.zeros((3, 1), int), np.zeros((3, 4))):
        for batch_size in (1, 2, 3, 1000):
            with pytest.raises(ValueError, match="label"):
                network.accuracy(x, labels, batch_size=batch_size)


# -- gradients -----------------------------------------------------------------------------------------------


def test_gradient_is_in_arrays_of_its_own(device):
    network = normalised()
    x, t = batch(network)
    first = network.gradient(x, t)
    assert type(first) is type(network.params)
    assert list(first) == list(network.params)
    assert {name: g.shape for name, g in first.items()} == {name: p.shape for name, p in network.params.items()}
    assert first.flat.dtype == network.params.flat.dtype
    assert_separate(first.flat, (network.grads.flat, network.params.flat, x))
    before = snapshot(first)
    second = network.gradient(*batch(network, seed=1))
    assert_unchanged(first, before)
    assert (asnumpy(second.flat) != asnumpy(first.flat)).any()
    network.grads.flat[...] = 0
    assert_unchanged(first, before)


def test_step_gradients_fills_the_network_s_own(device):
    network = normalised()
    x, t = batch(network)
    flat, start = network.grads.flat, backend.random.default.state
    gradient = network.gradient(x, t)
    network.grads.flat[...] = xp.nan
    backend.random.default.state = start
    loss = network.step_gradients(x, t)
    assert loss.shape == ()
    assert network.grads.flat is flat
    assert_same(flat, gradient.flat)


GRADIENT_NETWORKS = {
    "TwoLayerNet": lambda: TwoLayerNet(10, 8, 5, weight_init_std="he", dtype="float64"),
    "SimpleConvNet": lambda: SimpleConvNet((2, 7, 6), conv(3), 6, 4, weight_init_std="he", dtype="float64"),
    "DeepConvNet": lambda: DeepConvNet(
        (1, 8, 8), conv(2), conv(2), conv(3), conv(2, pad=2), conv(3), conv(3), 5, 4, dtype="float64"
    ),
    "ConvNet": lambda: ConvNet((1, 12, 12), (2, 3, 2), output_size=3, dtype="float64"),
    "residual": lambda: normalised("float64"),
}


@pytest.mark.parametrize("name", GRADIENT_NETWORKS)
def test_gradient_is_the_numerical_one(name):
    """Dropout drops the same in both, and the running statistics stay out of it."""
    network = GRADIENT_NETWORKS[name]()
    for key, array in network.params.items():
        if key[0] == "b":  # a window that sees padding alone would lie on the kink of its relu
            array += np.random.default_rng(5).uniform(0.05, 0.2, array.shape)
    x, t = batch(network, n=3, seed=2)
    states, params, start = snapshot(network.state), snapshot(network.params), backend.random.default.state
    numerical = network.numerical_gradient(x, t)
    assert_unchanged(network.state, states)
    assert_unchanged(network.params, params)
    assert backend.random.default.state == start
    gradient = network.gradient(x, t)
    assert list(numerical) == list(gradient)
    for key, g in gradient.items():
        assert numerical[key].shape == g.shape
        assert np.abs(g - numerical[key]).mean() < 1e-8, key
    assert all((g != 0).any() for key, g in gradient.items() if key[0] == "W")


def test_gradient_on_every_device_is_the_cpu_s(device):
    network = normalised("float64")
    x, t = batch(network)
    start = backend.random.default.state
    gradient = network.gradient(x, t)
    with backend.use("cpu"):
        backend.random.default.state = start
        backend.random.seed(0)
        on_cpu = normalised("float64")
        assert backend.random.default.state == start
        expected = on_cpu.gradient(*batch(on_cpu))
    for name, g in gradient.items():
        np.testing.assert_allclose(asnumpy(g), expected[name], rtol=1e-10, atol=1e-12)


def test_labels_one_hot_or_as_indices_give_one_gradient(device):
    network = TwoLayerNet(5, 4, 3, "he")
    x, t = batch(network, n=4)
    a, b = network.gradient(x, t), network.gradient(x, one_hot(t, 3))
    np.testing.assert_allclose(asnumpy(a.flat), asnumpy(b.flat), rtol=1e-5, atol=1e-7)


def test_numerical_gradient_restores_everything_when_it_fails():
    network = normalised("float64")
    x, _ = batch(network)
    states, params, start = snapshot(network.state), snapshot(network.params), backend.random.default.state
    with pytest.raises(ValueError, match="label"):
        network.numerical_gradient(x, np.array([0, 1, 9]))
    assert_unchanged(network.state, states)
    assert_unchanged(network.params, params)
    assert backend.random.default.state == start


# -- one buffer ----------------------------------------------------------------------------------------------


def test_layers_live_in_the_network_s_buffers(device):
    layer = Affine(xp.ones((3, 3), "float32"), xp.zeros(3, "float32"))
    network = Network(Sequential(layer, Relu(), Affine.of(3, 3)), (3,))
    assert layer.W is network.params["W1"]
    assert layer.b is network.params["b1"]
    np.testing.assert_array_equal(asnumpy(network.params.flat[:12]), [1] * 9 + [0] * 3)
    network.params.flat += 1
    np.testing.assert_array_equal(asnumpy(layer.W), np.full((3, 3), 2))
    layer.W = xp.full((3, 3), 5, "float32")
    assert layer.W is network.params["W1"]
    np.testing.assert_array_equal(asnumpy(network.params.flat[:9]), [5] * 9)
    x, t = batch(network)
    before = network.predict(x)
    network.step_gradients(x, t)
    assert layer.dW is network.grads["W1"]
    SGD(0.5).update(network.params, network.grads)
    assert (asnumpy(network.predict(x)) != asnumpy(before)).any()


def test_the_first_layer_makes_no_gradient_of_the_data():
    network = SimpleConvNet((1, 6, 6), conv(2), 4, 3)
    network.loss(*batch(network), train_flg=True)
    assert network.layers.backward(network.last_layer.backward()) is None


def test_astype_converts_and_stays_bound(device):
    network = normalised()
    x, t = batch(network)
    narrow = asnumpy(network.predict(x))
    assert network.astype("float64") is network
    arrays = [*network.params.values(), *network.grads.values(), *network.state.values()]
    assert {str(array.dtype) for array in arrays} == {"float64"}
    assert network.layers["Affine1"].W is network.params["W4"]
    wide = network.predict(x.astype("float64"))
    assert wide.dtype == "float64"
    np.testing.assert_allclose(asnumpy(wide), narrow, rtol=1e-3, atol=1e-4)
    network.params.flat[...] = 0
    assert not asnumpy(network.predict(x.astype("float64"))).any()
    assert network.gradient(x.astype("float64"), t).flat.dtype == "float64"


def test_astype_to_the_same_dtype_copies_nothing(device):
    network = normalised()
    before = [network.params, network.grads, network.params.flat, *network.state.values()]
    assert network.astype("float32").to(device) is network
    after = [network.params, network.grads, network.params.flat, *network.state.values()]
    assert all(one is other for one, other in zip(before, after, strict=True))
    x, t = batch(network)
    loss = float(network.loss(x, t))
    network.params.flat[...] = 0
    assert float(network.loss(x, t)) != loss


def test_layers_cannot_be_replaced():
    """Their parameters would not be those that the optimizer changes."""
    network = normalised()
    layers = network.layers
    with pytest.raises(AttributeError, match="make another Network"):
        network.layers = copy.deepcopy(layers)
    assert network.layers is layers


def test_astype_refuses_what_is_not_floating():
    network = normalised()
    before = snapshot({**network.params, **network.state})
    with pytest.raises((TypeError, ValueError), match="int32"):
        network.astype("int32")
    assert_unchanged({**network.params, **network.state}, before)


def test_to_the_cpu(device):
    network = normalised("float64")
    x, t = batch(network)
    scores = asnumpy(network.predict(x))
    assert network.to("cpu") is network
    arrays = [*network.params.values(), network.params.flat, network.grads.flat, *network.state.values()]
    assert all(type(array) is np.ndarray for array in arrays)
    with backend.use("cpu"):
        np.testing.assert_allclose(network.predict(asnumpy(x)), scores, rtol=1e-10, atol=1e-12)
        network.gradient(asnumpy(x), asnumpy(t))
        network.params.flat[...] = 0
        assert not network.predict(asnumpy(x)).any()


def test_copies_of_the_layers_are_another_network(device):
    network = normalised()
    x, t = batch(network)
    network.step_gradients(x, t)
    scores, before = network.predict(x), snapshot({**network.params, **network.state})
    twin = Network(copy.deepcopy(network.layers), network.input_dim)
    assert_same(twin.predict(x), scores)
    assert_separate(twin.params.flat, (network.params.flat,))
    twin.predict(x, train_flg=True)
    twin.params.flat[...] = 0
    twin.step_gradients(x, t)
    assert_unchanged({**network.params, **network.state}, before)
    assert_same(network.predict(x), scores)


def test_repr_tells_sizes_and_layers():
    text = repr(TwoLayerNet(784, 50, 10))
    assert text.startswith("TwoLayerNet((784,) → 10, 39,760 parameters)\n")
    assert "Affine2: Affine(50 → 10)" in text


# -- errors ----------------------------------------------------------------------------------------------------


def test_a_layer_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"layer 'Affine2', Affine\(5 → 2\).*\(4,\)"):
        Network(Sequential(Affine.of(3, 4), Relu(), Affine.of(5, 2)), (3,))
    with pytest.raises(ValueError, match=r"layer 'Convolution1'.*\(3, 8, 8\)"):
        Network(Sequential(Convolution.of(1, 2, 3), Flatten()), (3, 8, 8))


def test_a_classifier_ends_in_scores():
    with pytest.raises(ValueError, match=r"SigmoidWithLoss takes \(outputs,\), a row .*, got \(2, 6, 6\)"):
        Network(Sequential(Convolution.of(1, 2, 3)), (1, 8, 8), loss="sigmoid")


def test_dtypes_are_not_mixed():
    with pytest.raises(TypeError, match="one dtype, got float32, float64"):
        Network(Sequential(Affine.of(3, 4), Affine.of(4, 2, dtype="float64")), (3,))


class Plain:
    def forward(self, x):
        return x

    def backward(self, dout):
        return dout


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match="'Plain1'"):
        Network(Sequential(Affine.of(3, 4), Plain()), (3,))
    with pytest.raises(ValueError, match="layer"):
        Network(Sequential(), (3,))


def test_samples_of_another_shape_are_refused():
    network = SimpleConvNet((1, 8, 8), conv(2), 4, 3)
    for shape in [(2, 3, 8, 8), (2, 1, 12, 12), (2, 64), (1, 8, 8)]:
        with pytest.raises(ValueError, match=r"takes|samples are \(N, 1, 8, 8\)"):
            network.predict(np.zeros(shape, "float32"))
    with pytest.raises(ValueError, match="takes 3 numbers"):
        TwoLayerNet(3, 4, 2).gradient(np.zeros((5, 4), "float32"), np.zeros(5, int))


def test_labels_that_are_no_classes_are_refused_on_the_cpu():
    network = TwoLayerNet(3, 4, 2)
    with pytest.raises(ValueError, match="label 2 at index 1 is out of range: expected 0 to 1"):
        network.loss(np.zeros((2, 3), "float32"), np.array([0, 2]))


def test_copies_and_pickles_have_buffers_of_their_own(device):
    network = TwoLayerNet(3, 4, 2)
    before = asnumpy(network.params.flat).copy()
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert_same(twin.params.flat, before)
        twin.params.flat += 1
        assert twin.layers["Affine1"].W is twin.params["W1"]
        assert_same(network.params.flat, before)


def test_parameters_cannot_be_cut_from_the_layers(device):
    network = TwoLayerNet(6, 4, 3)
    before = snapshot(network.params)
    for name in ("params", "grads"):
        with pytest.raises(AttributeError, match=rf"{name} are the arrays of the layers.*network\.{name}\.update"):
            setattr(network, name, {})
    for name, array in before.items():
        assert_same(network.params[name], array)


def test_a_sequential_with_a_backward_of_its_own_trains(device):
    class Doubling(Sequential):
        def backward(self, dout, filled=None):
            return super().backward(2 * dout, filled)

    backend.random.seed(3)
    own = Network(Doubling(Affine.of(4, 3)), (4,))
    backend.random.seed(3)
    plain = Network(Sequential(Affine.of(4, 3)), (4,))
    x, t = xp.ones((2, 4), "float32"), xp.array([0, 2])
    np.testing.assert_array_equal(asnumpy(own.gradient(x, t).flat), asnumpy(2 * plain.gradient(x, t).flat))


def test_one_layer_in_two_places_is_refused():
    shared = Relu()
    branches = [Residual(Sequential(Affine.of(4, 4), shared)) for _ in range(2)]
    with pytest.raises(ValueError, match=r"one Relu is Residual1.body.Relu1 and Residual2.body.Relu1"):
        Network(Sequential(*branches), (4,))
