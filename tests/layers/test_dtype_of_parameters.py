"""The parameters decide what a network computes in: book code draws float64 weights and feeds float32 images."""

import numpy as np
import pytest

from backend import asnumpy, xp
from layers import Affine, BatchNormalization, Convolution, ConvolutionTranspose, LayerNormalization, Relu
from layers import SoftmaxWithLoss as Loss
from tests.support.checks import assert_same, frozen, normal

LAYERS = [
    (lambda dtype: Affine(normal((6, 3), dtype), normal(3, dtype)), (4, 6)),
    (lambda dtype: Convolution(normal((3, 2, 3, 3), dtype), normal(3, dtype)), (2, 2, 5, 5)),
    (lambda dtype: ConvolutionTranspose(normal((2, 3, 2, 2), dtype), normal(3, dtype)), (2, 2, 3, 3)),
    (lambda dtype: BatchNormalization(xp.ones(2, dtype), xp.zeros(2, dtype)), (4, 2, 3, 3)),
    (lambda dtype: LayerNormalization(xp.ones(6, dtype), xp.zeros(6, dtype)), (4, 6)),
]


@pytest.mark.parametrize(
    ("of_x", "of_parameters"), [("float32", "float64"), ("float64", "float32"), ("float16", "float32")]
)
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_the_parameters_decide(device, make, shape, of_x, of_parameters):
    x, layer = normal(shape, of_x, 1), make(of_parameters)
    with frozen(x):
        y = layer.forward(x)
        dx = layer.backward(xp.ones_like(y))
    assert {array.dtype.name for array in (y, dx, *layer.grads.values())} == {of_parameters}
    assert_same(make(of_parameters).forward(x.astype(of_parameters)), asnumpy(y))


def test_a_network_in_the_manner_of_the_book(device):
    """A class as readers of the book write it: weights from randn, a dict of layers, a loss layer at the end."""

    class Net:
        def __init__(self):
            rng = np.random.default_rng(0)
            self.params = {"W1": xp.asarray(0.1 * rng.standard_normal((8, 5))), "b1": xp.zeros(5)}
            self.params |= {"W2": xp.asarray(0.1 * rng.standard_normal((5, 3))), "b2": xp.zeros(3)}
            self.layers = {
                "Affine1": Affine(self.params["W1"], self.params["b1"]),
                "Relu1": Relu(),
                "Affine2": Affine(self.params["W2"], self.params["b2"]),
            }
            self.last_layer = Loss()

        def loss(self, x, t):
            for layer in self.layers.values():
                x = layer.forward(x)
            return self.last_layer.forward(x, t)

        def gradient(self, x, t):
            self.loss(x, t)
            dout = self.last_layer.backward(1)
            for layer in reversed(list(self.layers.values())):
                dout = layer.backward(dout)
            first, second = self.layers["Affine1"], self.layers["Affine2"]
            return {"W1": first.dW, "b1": first.db, "W2": second.dW, "b2": second.db}

    network, x, t = Net(), normal((6, 8), "float32"), xp.asarray([0, 1, 2, 0, 1, 2])
    before = float(network.loss(x, t))
    for _ in range(50):
        gradients = network.gradient(x, t)
        for name, gradient in gradients.items():
            assert gradient.dtype == "float64"
            network.params[name] -= 0.5 * gradient  # in place: the layers see it
    assert float(network.loss(x, t)) < 0.5 * before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("x", [None, [[1.0, 2.0]], 3.0, "x"])
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_no_array_is_named_as_such(make, shape, x, dtype):
    """For float64 as well, which NumPy takes for equal to the dtype None."""
    layer = make(dtype)
    with pytest.raises(TypeError, match=rf"^{type(layer).__name__} needs x as .*, got {type(x).__name__}$"):
        layer.forward(x)


@pytest.mark.parametrize("shape", [(), (3,), (4, 5), (2, 5, 3, 3), (1, 1, 1, 2, 2)])
@pytest.mark.parametrize("make", [LAYERS[3][0], LAYERS[4][0]])
def test_a_layer_that_does_not_fit_is_named(make, shape):
    layer = make("float32")
    with pytest.raises(ValueError, match=rf"^{type(layer).__name__}\(.*got \("):
        layer.forward(normal(shape, "float32"))
