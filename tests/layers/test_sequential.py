"""Layers made of layers."""

import copy
import pickle
import warnings

import numpy as np
import pytest

from backend import asnumpy, profiling, random, xp
from backend.recording import Recorder
from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    Pooling,
    Relu,
    Residual,
    Sequential,
    Sigmoid,
)
from tests.support import oracles
from tests.support.checks import assert_same, normal
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle
from tests.support.oracles import Geometry

AROUND, POOL = Geometry((3, 3), pads=(1, 1, 1, 1)), Geometry((2, 2), (2, 2))


def exact(forward, backward):
    """Over whole numbers a network rounds nothing, so it must be met exactly."""
    return Oracle(
        lambda p, x: Expected(forward(p, x)[-1]),
        lambda p, dout, x: {name: Expected(gradient) for name, gradient in backward(p, dout, x).items()},
    )


def small_network(draw):
    return Sequential(
        Convolution(draw(2, 2, 3, 3), draw(2), pad=1),
        Relu(),
        Pooling(2, 2, stride=2),
        Flatten(),
        Affine(draw(8, 3), draw(3)),
    )


def small_network_forward(p, x):
    made = oracles.convolution(x, p["Convolution1.W"], p["Convolution1.b"], AROUND)
    pooled, argmax = oracles.max_pool(np.maximum(made, 0), POOL)
    rows = pooled.reshape(len(x), -1)
    return made, argmax, rows, rows @ p["Affine1.W"] + p["Affine1.b"]


def small_network_backward(p, dout, x):
    made, argmax, rows, _ = small_network_forward(p, x)
    dpooled = (dout @ p["Affine1.W"].T).reshape(argmax.shape)
    dmade = oracles.max_pool_backward(dpooled, argmax, made.shape) * (made > 0)
    W = p["Convolution1.W"]
    return {
        "x": oracles.convolution_backward_input(dmade, W, x.shape, AROUND),
        "Convolution1.W": oracles.convolution_backward_weight(x, dmade, W.shape, AROUND),
        "Convolution1.b": dmade.sum((0, 2, 3)),
        "Affine1.W": rows.T @ dout,
        "Affine1.b": dout.sum(0),
    }


def residual_forward(p, x):
    return (oracles.convolution(x, p["body.W"], p["body.b"], AROUND) + x,)


def residual_backward(p, dout, x):
    return {
        "x": oracles.convolution_backward_input(dout, p["body.W"], x.shape, AROUND) + dout,
        "body.W": oracles.convolution_backward_weight(x, dout, p["body.W"].shape, AROUND),
        "body.b": dout.sum((0, 2, 3)),
    }


def shortcut_forward(p, x):
    inner = np.maximum(x @ p["body.Affine1.W"] + p["body.Affine1.b"], 0)
    return inner, inner + x @ p["shortcut.W"] + p["shortcut.b"]


def shortcut_backward(p, dout, x):
    inner, _ = shortcut_forward(p, x)
    dinner = dout * (inner > 0)
    return {
        "x": dinner @ p["body.Affine1.W"].T + dout @ p["shortcut.W"].T,
        "body.Affine1.W": x.T @ dinner,
        "body.Affine1.b": dinner.sum(0),
        "shortcut.W": x.T @ dout,
        "shortcut.b": dout.sum(0),
    }


CASES = [
    LayerCase(
        "Sequential", small_network, (2, 2, 4, 4), exact(small_network_forward, small_network_backward), exact=True
    ),
    LayerCase(
        "Residual",
        lambda draw: Residual(Convolution(draw(3, 3, 3, 3), draw(3), pad=1)),
        (2, 3, 4, 3),
        exact(residual_forward, residual_backward),
        exact=True,
    ),
    LayerCase(
        "Residual with a shortcut",
        lambda draw: Residual(Sequential(Affine(draw(4, 3), draw(3)), Relu()), Affine(draw(4, 3), draw(3))),
        (5, 4),
        exact(shortcut_forward, shortcut_backward),
        exact=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_names_and_order():
    """By class and place; or as given. Parameters come in the layers' order."""
    network = Sequential(Affine.of(4, 3), Relu(), Affine.of(3, 3), Relu(), Affine.of(3, 2))
    assert list(network.layers) == ["Affine1", "Relu1", "Affine2", "Relu2", "Affine3"]
    assert list(network.params) == [f"Affine{i}.{name}" for i in (1, 2, 3) for name in "Wb"]
    assert network[0] is network["Affine1"]
    assert network[-1] is network["Affine3"]
    assert len(network) == 5
    named = Sequential({"hidden": Affine.of(4, 3), "out": Sequential(Affine.of(3, 2))})
    assert list(named.params) == ["hidden.W", "hidden.b", "out.Affine1.W", "out.Affine1.b"]
    norm = Sequential(BatchNormalization.of(3), Residual(BatchNormalization.of(3)))
    assert list(norm.state) == [
        f"{name}.running_{statistic}"
        for name in ("BatchNormalization1", "Residual1.body")
        for statistic in ("mean", "var")
    ]


def test_an_empty_one_returns_another_array(device):
    """Outputs never alias inputs, also where there is nothing to do."""
    x = normal((2, 3))
    network = Sequential()
    y = network.forward(x)
    assert_same(y, x)
    assert not xp.shares_memory(y, x)
    assert not xp.shares_memory(network.backward(x), x)
    assert network.output_shape((3,)) == (3,)


def test_a_first_layer_without_the_input_gradient(device):
    network, x = Sequential(Affine.of(4, 3), Relu(), Affine.of(3, 2)), normal((5, 4))
    dout = normal(network.forward(x).shape)
    assert network.backward(dout).shape == x.shape
    before = {name: gradient.copy() for name, gradient in network.grads.items()}
    network[0].input_gradient = False
    network.forward(x)
    assert network.backward(dout) is None
    for name, gradient in network.grads.items():
        assert_same(gradient, before[name])


def test_a_residual_of_nothing_doubles(device):
    x = normal((2, 3))
    layer = Residual(Relu())
    assert_same(layer.forward(abs(x)), abs(x) * 2)
    assert_same(layer.backward(x), x * 2)


def nested():
    return Sequential(Affine.of(4, 3), Residual(Sequential(BatchNormalization.of(3), Dropout(0.5)), Dropout(0.2)))


def leaves(layer):
    below = layer.sublayers()
    return [leaf for _, part in below for leaf in leaves(part)] if below else [layer]


def test_modes_reach_nested_layers():
    network = nested()
    assert {leaf.training for leaf in leaves(network)} == {True}
    assert network.eval() is network
    assert {leaf.training for leaf in leaves(network)} == {False}
    assert network.train() is network
    assert {leaf.training for leaf in leaves(network)} == {True}


def test_modes_change_what_is_computed(device):
    """In evaluation twice the same, and no statistics move; in training other masks each time."""
    network, x = nested().eval(), normal((5, 4))
    before = {name: array.copy() for name, array in network.state.items()}
    assert_same(network.forward(x), network.forward(x))
    for name, array in network.state.items():
        assert_same(array, before[name])
    network.train()
    assert float(abs(network.forward(x) - network.forward(x)).max()) > 0
    assert all(float(abs(array - before[name]).max()) > 0 for name, array in network.state.items())


def test_astype_reaches_nested_layers(device):
    network = nested().astype("float64")
    assert {array.dtype.name for array in {**network.params, **network.state}.values()} == {"float64"}
    y = network.forward(normal((5, 4), "float64"))
    assert y.dtype == "float64"


def test_refuses_what_is_no_layer():
    """A stranger's dropout would never hear that it is evaluated."""

    class Double:
        def forward(self, x):
            return x * 2

        def backward(self, dout):
            return dout * 2

    with pytest.raises(TypeError, match=r"'Double1' is .*Double"):
        Sequential(Double())


def test_output_shape_names_the_first_that_does_not_fit():
    network = Sequential(
        Convolution.of(1, 4, 3), Relu(), Pooling(2, 2, stride=2), Flatten(), Affine.of(36, 5), Affine.of(5, 2)
    )
    assert network.output_shape((1, 8, 8)) == (2,)
    with pytest.raises(ValueError) as caught:
        network.output_shape((1, 10, 10))
    message = str(caught.value)
    assert "'Affine1'" in message
    assert "Affine(36 → 5)" in message
    assert "64 numbers" in message
    with pytest.raises(ValueError, match=r"'Convolution1'.*1 channels, got \(3, 10, 10\)"):
        network.output_shape((3, 10, 10))
    with pytest.raises(ValueError, match=r"'Pooling1'.*does not fit the image's height: 1"):
        network.output_shape((1, 3, 8))
    with pytest.raises(ValueError, match=r"(?s)'Sequential1'.*'Affine2'"):
        Sequential(Sequential(Affine.of(2, 2), Affine.of(3, 2))).output_shape((2,))


def test_residual_refuses_branches_that_differ():
    with pytest.raises(ValueError, match=r"body makes \(3,\) of \(4,\), shortcut \(4,\)"):
        Residual(Affine.of(4, 3)).output_shape((4,))
    with pytest.raises(ValueError, match=r"body \(2, 3\) and shortcut \(2, 4\)"):
        Residual(Affine.of(4, 3)).forward(np.ones((2, 4), "float32"))


def test_refuses_a_number():
    with pytest.raises(TypeError, match=r"'int1' is 3"):
        Sequential(Relu(), 3)
    relu = Relu()
    with pytest.raises(ValueError, match="one stands in two"):
        Sequential(relu, Affine.of(2, 2), relu)


def layers_of(recorder):
    """Name, category and enclosing layers of each layer's range, in order."""

    def path(event):
        return () if event is None else (*path(event.parent), event.name)

    return [(*path(event), event.category) for event in recorder.events if event.kind == "layer"]


def test_every_layer_has_its_range():
    """A profiler sees each layer by its name in the network, forward and backward, also in a copy."""
    for network in (Sequential(Relu(), Sigmoid()), copy.deepcopy(Sequential(Relu(), Sigmoid()))):
        with Recorder() as recorder:
            network.forward(np.ones((1, 2)))
            network.backward(np.ones((1, 2)))
        assert layers_of(recorder) == [
            ("Relu1", "forward"),
            ("Sigmoid1", "forward"),
            ("Sigmoid1", "backward"),
            ("Relu1", "backward"),
        ]


def test_layers_inside_layers_have_ranges_inside_theirs():
    network = Sequential(Residual(Sequential(Sigmoid()), Relu()), Residual(Relu()))
    with Recorder() as recorder:
        network.forward(np.ones((1, 2)))
        network.backward(np.ones((1, 2)))
    assert layers_of(recorder) == [
        ("Residual1", "forward"),
        ("Residual1", "body", "forward"),
        ("Residual1", "body", "Sigmoid1", "forward"),
        ("Residual1", "shortcut", "forward"),
        ("Residual2", "forward"),
        ("Residual2", "body", "forward"),
        ("Residual2", "backward"),
        ("Residual2", "body", "backward"),
        ("Residual1", "backward"),
        ("Residual1", "shortcut", "backward"),
        ("Residual1", "body", "backward"),
        ("Residual1", "body", "Sigmoid1", "backward"),
    ]


def test_a_layers_range_is_about_its_input_and_its_operations_inside_it():
    with Recorder() as recorder:
        Sequential(Sigmoid()).forward(np.ones((5, 2), "float32"))
    layer, kernel = recorder.events
    assert (layer.name, layer.shapes, layer.bytes) == ("Sigmoid1", ((5, 2),), 40)
    assert (kernel.name, kernel.category, kernel.parent) == ("activations.sigmoid", "forward", layer)
    assert (kernel.shapes, kernel.bytes) == (((5, 2),), 80)  # x, and y that comes back


def test_ranges_are_left_when_a_layer_fails():
    with Recorder() as recorder:
        with pytest.raises(ValueError):
            Sequential(Relu(), Affine.of(3, 2)).forward(np.ones((1, 2), "float32"))
        with profiling.Range("after"):
            pass
    assert layers_of(recorder) == [("Relu1", "forward"), ("Affine1", "forward")]
    assert recorder.events[-1].parent is None


def test_repr():
    network = Sequential(Affine.of(4, 3), Residual(Sequential(Relu())))
    assert repr(network) == (
        "Sequential(\n  Affine1: Affine(4 → 3)\n  Residual1: Residual(Sequential(\n      Relu1: Relu()\n    ))\n)"
    )
    assert repr(Residual(Relu(), Affine.of(2, 2))) == "Residual(Relu(), Affine(2 → 2))"


# -- what follows a layer, done along with it ------------------------------------------------------------------


def _leading(dtype):
    """Layers that a Relu can follow, with an input for each."""
    images = random.normal((3, 4, 7, 6)).astype(dtype)
    images[0, 0, 0, :3] = xp.asarray([float("nan"), float("inf"), 0.0])
    return {
        "convolution": (Convolution.of(4, 6, 3, pad=1, dtype=dtype), images),
        "grouped": (Convolution.of(4, 6, 3, groups=2, dtype=dtype), images),
        "depthwise": (Convolution.of(4, 4, 3, groups=4, dtype=dtype), images),
        "normalisation": (BatchNormalization.of(4, dtype=dtype), images),
        "normalisation of a matrix": (BatchNormalization.of(5, dtype=dtype), random.normal((8, 5)).astype(dtype)),
    }


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["convolution", "grouped", "depthwise", "normalisation", "normalisation of a matrix"])
def test_a_relu_done_along_with_the_layer_before_it_changes_no_bit(device, name, dtype, training):
    random.seed(3)
    layer, x = _leading(dtype)[name]
    assert layer.forward_relu is not None
    together, apart, relu = Sequential(copy.deepcopy(layer), Relu()), layer, Relu()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        y = relu.forward(apart.train(training).forward(x))
        dout = random.normal(y.shape).astype(dtype)
        dx = apart.backward(relu.backward(dout))
        assert_same(together.train(training).forward(x), y)
        assert_same(together.backward(dout), dx)
    for key, gradient in apart.grads.items():
        assert_same(together[0].grads[key], gradient)
    for key, state in apart.state.items():
        assert_same(together[0].state[key], state)


def test_a_relu_of_ones_own_is_not_replaced():
    class Loud(Relu):
        called = 0

        def forward(self, x):
            Loud.called += 1
            return super().forward(x)

    Sequential(Convolution.of(1, 2, 3), Loud()).forward(xp.zeros((1, 1, 5, 5), "float32"))
    assert Loud.called == 1


def test_a_layer_that_overrides_forward_alone_is_not_fused(device):
    """Its ``forward_relu`` is that of its base, which does not do what the subclass adds."""

    class Doubled(Affine):
        def forward(self, x):
            y = super().forward(x)
            y *= 2
            return y

    x = xp.ones((1, 2), "float32")
    layers = [kind(xp.ones((2, 1), "float32"), xp.zeros(1, "float32")) for kind in (Affine, Doubled)]
    for layer, y in zip(layers, (2, 4), strict=True):
        assert_same(Sequential(layer, Relu()).forward(x), np.full((1, 1), y, "float32"))


def test_which_layers_are_fused_is_decided_once():
    class Named(Relu):
        pass

    class Both(Affine):
        def forward(self, x):
            return super().forward(x)

        def forward_relu(self, x):
            return super().forward_relu(x)

    class Never(Affine):
        forward_relu = None

    def fused(*layers):
        return [step.relu is not None for step in Sequential(*layers).steps]

    def affine(kind=Affine):
        return kind(np.ones((2, 2), "float32"), np.zeros(2, "float32"))

    assert fused(affine(), Relu()) == fused(affine(), Named()) == fused(affine(Both), Relu()) == [True]
    assert fused(affine(Never), Relu()) == fused(Sequential(affine()), Relu()) == [False, False]
    assert fused(affine(), Relu(), Relu()) == [True, False]
    assert fused(Relu(), Relu(), affine()) == [False, False, False]
    assert len(Sequential(affine(), Relu()).plan(fuse=False)) == 2
    assert [step.range.name for step in Sequential(affine(), Relu(), affine()).steps] == ["Affine1", "Affine2"]


def test_the_layers_of_a_sequential_cannot_be_replaced():
    """Its steps would be stale, and so would be the flat buffers of a network."""
    chain = Sequential(Affine.of(2, 2), Relu())
    with pytest.raises(TypeError, match="does not support item assignment"):
        chain.layers["Relu1"] = Affine.of(2, 2)
    with pytest.raises(TypeError, match="does not support item deletion"):
        del chain.layers["Relu1"]
    with pytest.raises(AttributeError):
        chain.layers = {"Relu1": Relu()}
    assert list(chain.layers) == ["Affine1", "Relu1"]
    block = Residual(Relu())
    for name in ("body", "shortcut"):
        with pytest.raises(AttributeError):
            setattr(block, name, Relu())
    given = {"first": Relu()}
    chain = Sequential(given)
    given["second"] = Relu()
    assert list(chain.layers) == ["first"]


def test_a_copy_runs_its_own_layers(device):
    chain, x = Sequential(Affine.of(3, 3), Relu()), normal((2, 3))
    y = asnumpy(chain.forward(x))
    for twin in (copy.deepcopy(chain), pickle.loads(pickle.dumps(chain))):
        chain[0].W[...] = 0
        assert_same(twin.forward(x), y)
        twin.backward(x)
        assert chain[0].dW is None
        chain[0].W[...] = twin[0].W


def test_a_layer_may_stay_in_its_own_mode():
    class Frozen(BatchNormalization):
        def train(self, mode=True):
            return super().train(False)

    chain = Sequential(Frozen.of(2), Dropout(0.5)).train()
    assert [layer.training for layer in (chain, *chain.layers.values())] == [True, False, True]
    with pytest.raises(TypeError, match="mode"):
        chain.train("yes")
