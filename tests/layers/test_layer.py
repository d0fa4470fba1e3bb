"""The base class: parameters that live in a model's flat buffers, conversion, and what a layer of one's own gets."""

import copy

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Layer,
    LayerNormalization,
    Relu,
    Sequential,
    Sigmoid,
    parameter,
)
from layers.initializers import standard_deviation, weights
from tests.support.checks import assert_same, normal

LAYERS = {
    "Affine": (lambda: Affine.of(4, 3), (5, 4)),
    "Convolution": (lambda: Convolution.of(2, 4, 3, pad=1), (2, 2, 4, 3)),
    "Convolution in groups": (lambda: Convolution.of(4, 6, 2, groups=2), (2, 4, 4, 3)),
    "Convolution by channel": (lambda: Convolution.of(3, 6, 2, groups=3), (2, 3, 4, 3)),
    "ConvolutionTranspose": (lambda: ConvolutionTranspose.of(3, 2, 3, stride=2), (2, 3, 2, 3)),
    "BatchNormalization": (lambda: BatchNormalization.of(3), (2, 3, 2, 2)),
    "LayerNormalization": (lambda: LayerNormalization.of((3, 2, 2)), (2, 3, 2, 2)),
}


def bound(layer):
    """The layer bound to flat buffers, and these: values, gradients."""
    sizes = [array.size for array in layer.params.values()]
    values, gradients = xp.zeros(sum(sizes), "float32"), xp.full(sum(sizes), 7, "float32")
    begin = 0
    for (name, array), size in zip(list(layer.params.items()), sizes, strict=True):
        place = slice(begin, begin + size)
        layer.bind(name, values[place].reshape(array.shape), gradients[place].reshape(array.shape))
        begin += size
    return layer, values, gradients


@pytest.fixture(params=LAYERS)
def pair(request, device):
    """A layer, the same bound to buffers, these buffers, and an input."""
    make, shape = LAYERS[request.param]
    layer = make()
    return layer, *bound(copy.deepcopy(layer)), normal(shape)


def flat(arrays):
    return np.concatenate([asnumpy(array).ravel() for array in arrays.values()])


def flat_of(layer):
    return xp.concatenate([array.ravel() for array in layer.grads.values()])


def test_binding_keeps_the_values(pair):
    layer, one, values, _, _ = pair
    assert_same(values, flat(layer.params))
    for name, array in one.params.items():
        assert xp.shares_memory(array, values)
        assert getattr(one, name) is array


def test_gradients_are_written_into_the_buffer(pair):
    """Whole and alike: what the buffer held before is gone."""
    layer, one, _, gradients, x = pair
    dout = normal(layer.forward(x).shape, seed=5)
    layer.backward(dout)
    one.forward(x)
    one.backward(dout)
    assert_same(gradients, flat(layer.grads))
    for name in one.grads:
        assert xp.shares_memory(one.grads[name], gradients)
        assert getattr(one, f"d{name}") is one.grads[name]


def test_an_update_of_the_buffer_is_seen(pair):
    """An optimizer knows only the flat buffer."""
    layer, one, values, _, x = pair
    values *= 2
    for name, array in layer.params.items():
        setattr(layer, name, array * 2)
    assert_same(one.forward(x), layer.forward(x))


def test_assignments_copy_in_place(pair):
    """Book code, ``layer.W = W``, must not tear the layer from its model."""
    _, one, values, _, _ = pair
    for index, (name, array) in enumerate(list(one.params.items())):
        new = xp.full(array.shape, index + 3, "float32")
        setattr(one, name, new)
        new += 1
        assert_same(one.params[name], np.full(array.shape, index + 3, "float32"))
    assert_same(values, flat(one.params))


def test_assignments_of_another_shape_are_refused(pair):
    """Also where they would broadcast; and nothing is changed."""
    _, one, values, _, _ = pair
    before = values.copy()
    for name, array in list(one.params.items()):
        for shape in ((*array.shape, 2), (1,) * array.ndim):
            with pytest.raises(ValueError) as caught:
                setattr(one, name, xp.ones(shape, "float32"))
            for part in (f"{type(one).__name__}.{name}", str(array.shape), str(shape)):
                assert part in str(caught.value)
    assert_same(values, before)


def test_gradients_of_another_shape_are_refused(pair):
    _, one, _, gradients, _ = pair
    for name, array in list(one.grads.items()):
        with pytest.raises(ValueError) as caught:
            setattr(one, f"d{name}", xp.ones((*array.shape, 2), "float32"))
        expected = f"{type(one).__name__}.d{name} must have shape {array.shape}, got {(*array.shape, 2)}"
        assert str(caught.value) == expected
        with pytest.raises(TypeError, match=f"d{name} must be an array of numbers"):
            setattr(one, f"d{name}", 1.0)
    assert_same(gradients, np.full(gradients.shape, 7, "float32"))


def test_the_gradient_to_fill(pair):
    """In a network the network's own memory, elsewhere a new array for each backward."""
    layer, one, _, gradients, x = pair
    for name, array in one.params.items():
        assert one.gradient(name) is one.grads[name]
        assert xp.shares_memory(one.gradient(name), gradients)
        made = layer.gradient(name)
        assert layer.grads[name] is made
        assert getattr(layer, f"d{name}") is made
        assert (made.shape, made.dtype) == (array.shape, array.dtype)
    layer.backward(layer.forward(x))
    before = {name: (array, array.copy()) for name, array in layer.grads.items()}
    layer.backward(layer.forward(x) * 2)
    for name, (array, values) in before.items():
        assert layer.grads[name] is not array
        assert_same(array, values)
    for each in (layer, one):
        with pytest.raises(ValueError, match="name must be"):
            each.gradient("Q")


def test_an_augmented_assignment_stays_in_the_buffer(pair):
    """As in the book: ``layer.W -= lr * layer.dW``."""
    _, one, values, _, x = pair
    one.backward(one.forward(x))
    before = values.copy()
    for name in one.params:
        setattr(one, name, getattr(one, name).__isub__(getattr(one, f"d{name}")))
        assert xp.shares_memory(getattr(one, name), values)
    assert_same(values, before - flat_of(one))


def test_buffers_of_another_shape_are_refused(pair):
    """Also where the parameter would broadcast into them; and the layer stays as it was."""
    layer = pair[0]
    for name, array in list(layer.params.items()):
        right, wrong = xp.zeros(array.shape, "float32"), xp.zeros((2, *array.shape), "float32")
        for value, gradient in ((wrong, right), (right, wrong)):
            with pytest.raises(ValueError) as caught:
                layer.bind(name, value, gradient)
            assert str(array.shape) in str(caught.value)
            assert str(wrong.shape) in str(caught.value)
        assert layer.params[name] is array


def test_a_copy_of_a_bound_layer_is_on_its_own(pair):
    _, one, values, gradients, x = pair
    before = values.copy()
    twin = copy.deepcopy(one)
    for name, array in list(twin.params.items()):
        setattr(twin, name, xp.zeros_like(array))
    twin.backward(twin.forward(x))
    assert_same(values, before)
    assert_same(gradients, np.full(gradients.shape, 7, "float32"))


def test_conversion_unbinds(pair):
    """Another dtype has no place in the buffer."""
    _, one, values, gradients, x = pair
    before = values.copy()
    one.astype("float64")
    one.backward(one.forward(x.astype("float64")))
    assert {array.dtype.name for array in {**one.params, **one.grads}.values()} == {"float64"}
    assert_same(values, before)
    assert_same(gradients, np.full(gradients.shape, 7, "float32"))


def test_conversion_to_integers_is_refused():
    layer = Affine.of(2, 3)
    before = layer.W.copy()
    with pytest.raises((TypeError, ValueError), match="int32"):
        layer.astype("int32")
    assert_same(layer.W, before)


def test_parameters_are_attributes():
    """Assigned before binding, an array is the parameter itself, as in the book."""
    layer, W = Affine.of(2, 3), np.ones((2, 3), "float32")
    layer.W = W
    assert layer.W is W
    assert layer.params["W"] is W
    assert layer.dW is None
    assert Affine.W.name == "W"
    assert Affine.dW.name == "W"


def test_layers_of_a_class_share_nothing():
    one, other = Affine.of(2, 3), Affine.of(2, 3)
    one.W = one.W + 1
    assert (other.W != one.W).all()
    assert other.params is not one.params


def test_modes_of_a_plain_layer():
    layer = Relu()
    assert layer.training
    assert layer.eval() is layer
    assert not layer.training
    assert layer.train() is layer
    assert layer.training
    assert layer.sublayers() == []
    assert layer.state == {}


def test_a_call_is_a_forward():
    x = np.float32([[-1, 2]])
    assert_same(Relu()(x), np.float32([[0, 2]]))


@pytest.mark.parametrize("fills", [True, False])
def test_a_layer_of_ones_own(device, fills):
    """The base class's promise: declare what is learned, define forward and backward."""

    class Scale(Layer):
        k, dk = parameter()

        def __init__(self, k):
            self.k = k

        def forward(self, x):
            return self.save(x * self.k, x)

        def backward(self, dout):
            (x,) = self.saved(dout)
            if fills:
                self.gradient("k")[...] = (dout * x).sum(0)
            else:
                self.dk = (dout * x).sum(0)
            return dout * self.k

    network = Sequential(Scale(xp.asarray([1.0, 2, 3])), Sigmoid())
    assert list(network.params) == ["Scale1.k"]
    network.forward(xp.zeros((2, 3)))
    network.backward(xp.ones((2, 3)))
    assert_same(network.grads["Scale1.k"], np.zeros(3))
    assert network.output_shape((3,)) == (3,)


def test_what_a_layer_must_define():
    class Nothing(Layer):
        pass

    with pytest.raises(NotImplementedError, match="Nothing defines no forward"):
        Nothing().forward(np.ones(1))
    with pytest.raises(NotImplementedError, match="Nothing defines no backward"):
        Nothing().backward(np.ones(1))
    assert repr(Nothing()) == "Nothing()"
    assert Nothing().output_shape((3, 4)) == (3, 4)


def test_what_was_returned_stays(device):
    """Buffers are recycled (from 64 KiB on), but not while anybody holds them."""
    x = normal((4, 8, 24, 24))
    for layer in (Relu(), Convolution.of(8, 8, 3, pad=1), BatchNormalization.of(8)):
        first = layer.forward(x)
        dx = layer.backward(first)
        kept = first.copy(), dx.copy()
        for _ in range(3):
            layer.backward(layer.forward(x * 2) + 1)
        assert_same(first, kept[0])
        assert_same(dx, kept[1])


@pytest.mark.parametrize(("init", "fan_in", "expected"), [("he", 8, 0.5), ("relu", 2, 1), ("xavier", 4, 0.5)])
def test_first_weights(device, init, fan_in, expected):
    """He et al. (2015), equation 10; Glorot and Bengio (2010), as the book has it in chapter 6.2."""
    assert standard_deviation(fan_in, init) == expected
    drawn = weights((30, 4), fan_in, init, "float64")
    backend.random.seed(0)
    assert_same(drawn, backend.random.normal((30, 4), expected, "float64"))


def test_first_weights_by_number():
    assert standard_deviation(5, "sigmoid") == 5**-0.5
    assert standard_deviation(5, 0.01) == 0.01
    assert (weights((3, 2), 5, 0.0) == 0).all()
    for init in (-1, float("nan")):
        with pytest.raises(ValueError, match=f"init must be a finite number, at least 0 .*, got {init}"):
            standard_deviation(5, init)
    with pytest.raises(ValueError, match=r"init must be 'he'.*got 'best'"):
        Affine.of(2, 3, init="best")


@pytest.mark.gpu
def test_first_weights_are_the_same_on_every_device():
    made = []
    for name in ("cpu", "cuda"):
        with backend.use(name):
            backend.random.seed(5)
            made.append(asnumpy(Affine.of(6, 5).W))
    assert_same(made[1], made[0])


@pytest.mark.gpu
def test_there_and_back():
    """To the device and home again: the same bits, and arrays where they should be."""
    with backend.use("cpu"):
        layer = BatchNormalization.of(3)
        layer.forward(normal((4, 3)))
        before = {name: array.copy() for name, array in {**layer.params, **layer.state}.items()}
    layer.to("cuda")
    assert all(not isinstance(array, np.ndarray) for array in {**layer.params, **layer.state}.values())
    layer.to("cpu")
    for name, array in {**layer.params, **layer.state}.items():
        assert isinstance(array, np.ndarray)
        assert_same(array, before[name])


def test_conversion_to_the_same_dtype_or_device_copies_nothing(pair):
    """And a bound layer stays in its network."""
    layer, one, _, gradients, x = pair
    for each in (layer, one):
        each.backward(each.forward(x))
        before = [*each.params.values(), *each.grads.values(), *each.state.values()]
        assert each.astype("float32").to(backend.current_device()) is each
        after = [*each.params.values(), *each.grads.values(), *each.state.values()]
        assert all(one is other for one, other in zip(before, after, strict=True))
    one.backward(one.forward(x))
    assert_same(gradients, flat(layer.grads))


def test_conversion_forgets_the_latest_forward():
    layer, x = Relu(), np.ones((2, 3), "float32")
    layer.forward(x)
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        layer.astype("float32").backward(x)
