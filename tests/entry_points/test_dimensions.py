"""Arrays of no dimensions and of one, at every elementwise layer; and the layers at the ends of their ranges."""

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers import (
    AddLayer,
    Dropout,
    Flatten,
    Gelu,
    LeakyRelu,
    MulLayer,
    Relu,
    Relu6,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from tests.support.checks import assert_same, frozen, normal

ELEMENTWISE = [Relu, Relu6, LeakyRelu, Sigmoid, Tanh, Gelu, Dropout]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(), (3,), (0,)])
def test_elementwise_layers_take_any_number_of_axes(device, kind, shape, dtype):
    """What they make of a number alone is what they make of it among others."""
    matrix = normal((1, *shape) if shape else (1, 1), dtype)
    x = matrix.reshape(shape)
    seen = []
    for given in (x, matrix):
        layer = kind()
        backend.random.seed(0)
        with frozen(given):
            y = layer.forward(given)
            seen.append((y, layer.backward(y)))
    (y, dx), (expected, gradient) = seen
    assert isinstance(y, xp.ndarray)
    assert isinstance(dx, xp.ndarray)
    assert_same(y, expected.reshape(shape))
    assert_same(dx, gradient.reshape(shape))


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_numpy_scalars_are_arrays_of_no_dimensions(kind):
    layer = kind()
    backend.random.seed(0)
    y = layer.forward(np.float32(-0.5))
    assert layer.backward(y).shape == y.shape == ()
    backend.random.seed(0)
    assert_same(y, kind().forward(np.array(-0.5, "float32")))


def test_layers_in_a_row_take_a_number(device):
    network = Sequential(Tanh(), Gelu(), Sigmoid(), LeakyRelu(0.0))
    y = network.forward(xp.asarray(0.25, "float32"))
    assert network.backward(xp.ones_like(y)).shape == y.shape == ()


def test_nodes_of_a_graph_take_numbers_of_arrays(device):
    for layer in (AddLayer(), MulLayer()):
        x, y = xp.asarray(2.0), xp.asarray(3.0)
        layer.forward(x, y)
        assert [float(gradient) for gradient in layer.backward(1)] == ([1, 1] if type(layer) is AddLayer else [3, 2])


@pytest.mark.parametrize(("kind", "words"), [(Softmax, "x must have an axis"), (Flatten, "needs x .N, …")])
def test_layers_along_an_axis_refuse_a_number(device, kind, words):
    with pytest.raises(ValueError, match=words):
        kind().forward(xp.asarray(1.0, "float32"))


def test_a_leaky_relu_of_slope_0_is_a_relu(device):
    """Bit for bit: no -0, and no NaN of 0 times infinity."""
    x = xp.asarray([-np.inf, -1.5, -0.0, 0.0, 2.5, np.inf, np.nan], "float32")
    dout = xp.asarray([np.inf, -np.inf, np.nan, 1, 2, 3, 4], "float32")
    layer, relu = LeakyRelu(0.0), Relu()
    assert asnumpy(layer.forward(x)).tobytes() == asnumpy(relu.forward(x)).tobytes()
    assert asnumpy(layer.backward(dout)).tobytes() == asnumpy(relu.backward(dout)).tobytes()
    images = normal((2, 3, 4, 5))
    assert_same(layer.forward(images), relu.forward(images))
    assert layer.forward(images).strides == relu.forward(images).strides


def test_a_leaky_relu_of_slope_1_is_the_identity(device):
    x = normal((3, 4))
    assert_same(LeakyRelu(1).forward(x), x)


def test_elementwise_operations_take_their_arrays_by_name(device):
    from kernels import activations

    x = normal((2, 3, 2, 2))
    assert_same(activations.relu(x=x)[0], activations.relu(x)[0])
    assert_same(activations.multiply(x, b=x), x * x)
    assert_same(activations.leaky_relu(x, 0.25)[0], activations.leaky_relu(x=x, slope=0.25)[0])
    with pytest.raises(TypeError, match="multiply needs a, b, got 1 of them"):
        activations.multiply(x)
