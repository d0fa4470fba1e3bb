"""Conv2D and Pool2D beyond the contract: lists of inputs, gradients that are not retained, padding by name."""

import numpy as np
import pytest

from backend import asnumpy, xp
from layers import Flatten, Relu, Sequential
from layers.compat.nhwc import Conv2D, Pool2D
from tests.support.checks import DTYPES, assert_same, frozen, whole


def conv(channels=2, filters=3, kernel=(3, 2), dtype="float32", **options):
    """A layer of whole numbers: its sums are exact."""
    layer = Conv2D(channels, filters, kernel, **options, dtype=dtype)
    layer.W, layer.b = whole(layer.W.shape, dtype, 1), whole(layer.b.shape, dtype, 2)
    return layer


LAYERS = {
    "conv": lambda dtype: conv(stride=2, pad="same", dtype=dtype),
    "max": lambda dtype: Pool2D((2, 2), 2, pad="same"),
    "average": lambda dtype: Pool2D((2, 2), 2, mode="average"),
}


# -- several inputs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("container", [list, tuple])
def test_a_list_is_its_members_one_by_one(device, name, dtype, container):
    """Of different sizes; what a layer learns from is the sum over the list."""
    shapes = [(2, 5, 4, 2), (1, 7, 8, 2), (0, 4, 4, 2)]
    xs = container(whole(shape, dtype, seed) for seed, shape in enumerate(shapes))
    layer, single = LAYERS[name](dtype), LAYERS[name](dtype)
    with frozen(*xs):
        ys = layer.forward(xs)
    douts = container(whole(y.shape, dtype, seed) for seed, y in enumerate(ys))
    with frozen(*xs, *douts):
        dxs = layer.backward(douts)
    assert type(ys) is type(dxs) is list
    sums = {}
    for x, y, dout, dx in zip(xs, ys, douts, dxs, strict=True):
        assert_same(y, single.forward(x))
        assert_same(dx, single.backward(dout))
        for key, gradient in single.grads.items():
            sums[key] = sums.get(key, 0) + asnumpy(gradient).astype(np.float64)
    assert layer.grads.keys() == sums.keys()
    for key, total in sums.items():
        assert_same(layer.grads[key], total, dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_a_list_of_one_and_of_none(device, name):
    layer, x = LAYERS[name]("float32"), whole((2, 5, 4, 2))
    y = layer.forward(x)
    dx = layer.backward(y)
    (listed,) = layer.forward([x])
    assert_same(listed, y)
    assert_same(layer.backward([y])[0], dx)
    assert layer.forward([]) == layer.backward([]) == []
    for gradient in layer.grads.values():
        assert_same(gradient, np.zeros(gradient.shape, "float32"))


def test_float16_gradients_are_summed_in_float32(device):
    """In float16 2048 + 1 is 2048 again, and so is 2048 + 1 + 1, one after the other."""
    layer = Conv2D(1, 1, 1, dtype="float16")
    xs = [xp.full((1, 1, 1, 1), value, "float16") for value in (2048, 1, 1)]
    layer.backward([xp.ones_like(y) for y in layer.forward(xs)])
    assert float(layer.dW[0, 0, 0, 0]) == 2050


# -- retain_grads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True])
def test_without_retaining_gradients(device, several):
    """None are made, and earlier ones stay; the input's gradient is the same."""
    layer, x = conv(), whole((2, 5, 4, 2))
    x = [x, x[:1]] if several else x
    y = layer.forward(x)
    before = layer.backward(y, retain_grads=False)
    assert layer.grads == {}
    after = layer.backward(y)
    kept = {name: gradient.copy() for name, gradient in layer.grads.items()}
    assert set(kept) == {"W", "b"}
    for one, other in zip(before if several else [before], after if several else [after], strict=True):
        assert_same(one, other)
    doubled = [2 * one for one in y] if several else 2 * y
    layer.backward(doubled, retain_grads=False)
    for name, gradient in kept.items():
        assert_same(layer.grads[name], gradient)


def test_pooling_takes_retain_grads_too(device):
    layer = Pool2D((2, 2), 2)
    y = layer.forward(whole((1, 4, 4, 2)))
    assert_same(layer.backward(y, retain_grads=False), layer.backward(y, retain_grads=True))
    assert layer.grads == {}


def test_without_the_input_gradient(device):
    layer, x = conv(), whole((2, 5, 4, 2))
    layer.input_gradient = False
    assert layer.backward(layer.forward(x)) is None
    assert set(layer.grads) == {"W", "b"}


# -- padding -------------------------------------------------------------------------------------------------------


def test_same_pads_after(device):
    """4 pixels, windows of 2 at stride 1: the fourth window holds the last pixel and one zero behind it."""
    x = xp.asarray([1, 2, 3, 4], "float32").reshape(1, 1, 4, 1)
    layer = Conv2D(1, 1, (1, 2), pad="same")
    layer.W = xp.ones((1, 2, 1, 1), "float32")
    y = layer.forward(x)
    assert_same(y.reshape(4), np.float32([3, 5, 7, 4]))
    assert_same(layer.backward(xp.ones_like(y)).reshape(4), np.float32([1, 2, 2, 2]))
    assert_same(Pool2D((1, 2), pad="same").forward(x).reshape(4), np.float32([2, 3, 4, 4]))
    assert_same(Pool2D((1, 2), pad="same", mode="average").forward(x).reshape(4), np.float32([1.5, 2.5, 3.5, 4]))
    counted = Pool2D((1, 2), pad="same", mode="average", count_padding=True)
    assert_same(counted.forward(x).reshape(4), np.float32([1.5, 2.5, 3.5, 2]))


def test_valid_is_no_padding(device):
    x = whole((1, 5, 5, 2))
    for layer, plain in ((conv(pad="valid"), conv()), (Pool2D(2, 2, "valid"), Pool2D(2, 2))):
        y = layer.forward(x)
        assert_same(y, plain.forward(x))
        assert_same(layer.backward(y), plain.backward(y))


def test_four_numbers_are_top_bottom_left_right(device):
    layer = Pool2D((1, 1), pad=(0, 0, 0, 0))
    assert layer.output_shape((5, 5, 1)) == (5, 5, 1)
    one = Conv2D(1, 1, 1, pad=(1, 2, 3, 4))
    one.W = xp.ones((1, 1, 1, 1), "float32")
    y = one.forward(xp.ones((1, 2, 2, 1), "float32"))
    assert_same(y, np.pad(np.ones((1, 2, 2, 1), "float32"), ((0, 0), (1, 2), (3, 4), (0, 0))))
    assert one.backward(y).shape == (1, 2, 2, 1)


def test_padding_never_wins_and_the_first_of_equals_does(device):
    layer = Pool2D(3, 3, pad=1)
    x = xp.full((1, 2, 2, 1), -5, "float32")
    assert_same(layer.forward(x), np.full((1, 1, 1, 1), -5, "float32"))
    dx = layer.backward(xp.ones((1, 1, 1, 1), "float32"))
    assert_same(dx.reshape(2, 2), np.float32([[1, 0], [0, 0]]))


# -- in a network --------------------------------------------------------------------------------------------------


def test_in_a_row(device):
    """With layers to which the order of axes means nothing."""
    network = Sequential(conv(pad="same"), Relu(), Pool2D(2, 2), Flatten())
    x = whole((2, 6, 4, 2))
    y = network.forward(x)
    assert y.shape == (2, *network.output_shape((6, 4, 2))) == (2, 18)
    assert network.backward(y).shape == x.shape
    assert set(network.grads) == {"Conv2D1.W", "Conv2D1.b"}


def test_bound_to_a_models_buffers(device):
    """Parameters live in the buffers that they were given, and gradients are written there: summed, not added up."""
    layer, free, x = conv(), conv(), whole((2, 5, 4, 2))
    buffers = {name: (xp.empty_like(array), xp.empty_like(array)) for name, array in layer.params.items()}
    for name, pair in buffers.items():
        layer.bind(name, *pair)
    for _ in range(2):
        for each in (layer, free):
            each.backward([2 * y for y in each.forward([x, x[:1]])])
    for name, (value, gradient) in buffers.items():
        assert layer.params[name] is value
        assert layer.grads[name] is gradient
        assert_same(value, free.params[name])
        assert_same(gradient, free.grads[name])


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_refuses_gradients(name):
    """Before any parameter's gradient is made."""
    layer = LAYERS[name]("float32")
    y = layer.forward(whole((1, 4, 4, 2)))
    with pytest.raises(ValueError, match="backward needs one gradient, as forward took its input, got a list of 1"):
        layer.backward([y])
    with pytest.raises(TypeError, match="backward needs dout as a floating-point array, got int"):
        layer.backward(1)
    ys = layer.forward([whole((1, 4, 4, 2)), whole((1, 6, 6, 2))])
    for given, got in ((ys[0], "one array"), (ys[:1], "a list of 1"), ([*ys, y], "a list of 3")):
        with pytest.raises(ValueError, match=f"backward needs a list of 2 gradients.*got {got}"):
            layer.backward(given)
    with pytest.raises(ValueError, match="needs the gradient of an output"):
        layer.backward(ys[::-1])
    with pytest.raises(TypeError, match="needs a gradient of the output's float32, got float64"):
        layer.backward([ys[0], ys[1].astype("float64")])
    assert layer.grads == {}
