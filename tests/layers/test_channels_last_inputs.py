"""Conv2D and Pool2D beyond the contract: lists, retain_grads, hyper-parameters, padding by name, what is refused."""

import json

import numpy as np
import pytest
from checks import DTYPES, assert_same, frozen, normal, whole

import backend
from backend import asnumpy, xp
from layers import Flatten, Relu, Sequential
from layers.channels_last import Conv2D, Pool2D


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


# -- hyper-parameters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            lambda: Conv2D(3, 8, (3, 2), stride=2, pad="same", init=0.01, dtype="float64"),
            {
                "layer": "Conv2D",
                "in_ch": 3,
                "out_ch": 8,
                "kernel_shape": [3, 2],
                "stride": [2, 2],
                "pad": "same",
                "init": 0.01,
                "dtype": "float64",
            },
        ),
        (
            lambda: Conv2D(np.int64(1), 2, 3, (1, 2), pad=(1, 0)).astype("float16"),
            {
                "layer": "Conv2D",
                "in_ch": 1,
                "out_ch": 2,
                "kernel_shape": [3, 3],
                "stride": [1, 2],
                "pad": [1, 1, 0, 0],
                "init": "he",
                "dtype": "float16",
            },
        ),
        (
            lambda: Pool2D((2, 3), 2, (0, 1, 2, 1), "average", count_padding=True),
            {
                "layer": "Pool2D",
                "kernel_shape": [2, 3],
                "stride": [2, 2],
                "pad": [0, 1, 2, 1],
                "mode": "average",
                "count_padding": True,
            },
        ),
        (
            lambda: Pool2D(2, pad="valid"),
            {
                "layer": "Pool2D",
                "kernel_shape": [2, 2],
                "stride": [1, 1],
                "pad": "valid",
                "mode": "max",
                "count_padding": False,
            },
        ),
    ],
)
def test_hyperparameters_rebuild_the_layer(device, layer, expected):
    """Through JSON; with the weights carried over, it computes the same."""
    made = layer()
    assert made.hyperparameters == expected
    twin = type(made).from_hyperparameters(json.loads(json.dumps(made.hyperparameters)))
    assert twin.hyperparameters == expected
    assert repr(twin) == repr(made)
    for name, array in made.params.items():
        assert twin.params[name].shape == array.shape
        assert twin.params[name].dtype == array.dtype
        setattr(twin, name, array)
    x = normal((2, 6, 7, expected.get("in_ch", 2)))
    assert_same(twin.forward(x), made.forward(x))


def test_what_has_a_default_may_be_left_out():
    assert (
        Conv2D.from_hyperparameters({"in_ch": 1, "out_ch": 2, "kernel_shape": [3, 3]}).hyperparameters["pad"] == [0] * 4
    )
    assert repr(Pool2D.from_hyperparameters({"kernel_shape": 2})) == "Pool2D(max, kernel 2x2)"


@pytest.mark.parametrize(
    ("hyperparameters", "error", "message"),
    [
        (
            {"kernel_shape": 2, "in_ch": 3},
            ValueError,
            r"hyperparameters needs 'out_ch', got \['kernel_shape', 'in_ch'\]",
        ),
        (
            {"in_ch": 1, "out_ch": 2, "kernel_shape": 2, "mode": "max"},
            ValueError,
            "hyperparameters takes 'in_ch', .*, not 'mode'",
        ),
        (
            {"layer": "Pool2D", "in_ch": 1, "out_ch": 2, "kernel_shape": 2},
            ValueError,
            r"hyperparameters\['layer'\] is 'Conv2D', not 'Pool2D'",
        ),
        ([3], TypeError, r"hyperparameters is a dictionary .*not \[3\]"),
    ],
)
def test_refuses_hyperparameters(hyperparameters, error, message):
    with pytest.raises(error, match=message):
        Conv2D.from_hyperparameters(hyperparameters)


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


# -- what is refused -----------------------------------------------------------------------------------------------


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv2D(0, 1, 3), ValueError, "in_ch is a whole number, at least 1, not 0"),
        (lambda: Conv2D(1, 1.5, 3), ValueError, "out_ch is a whole number, at least 1, not 1.5"),
        (lambda: Conv2D(1, 1, (3, 0)), ValueError, "kernel is at least 1, not 0"),
        (lambda: Conv2D(1, 1, (3, 3, 3)), ValueError, "kernel is one number or a pair"),
        (lambda: Conv2D(1, 1, 3, stride=0), ValueError, "stride is at least 1, not 0"),
        (lambda: Conv2D(1, 1, 3, pad="full"), ValueError, "'same' or 'valid', not 'full'"),
        (lambda: Conv2D(1, 1, 3, pad=(1, 2, 3)), ValueError, "padding is one number, a pair, four numbers"),
        (lambda: Conv2D(1, 1, 3, init="glorot"), ValueError, "not 'glorot'"),
        (lambda: Conv2D(1, 1, 3, dtype="int32"), TypeError, "int32"),
        (lambda: Pool2D(2, mode="mean"), ValueError, "mode is 'max' or 'average', not 'mean'"),
        (lambda: Pool2D(2, count_padding=True), ValueError, "count_padding belongs to mode 'average'"),
        (lambda: Pool2D(2).forward(ones(2, 4, 4)), ValueError, r"takes images \(N, H, W, C\), got shape \(2, 4, 4\)"),
        (lambda: Pool2D(2).forward(ones(1, 1, 4, 4)), ValueError, "window of 2 does not fit the image's height: 1"),
        (lambda: Pool2D(1, pad=1).forward(ones(1, 3, 3, 1)), ValueError, "nothing but padding"),
        (
            lambda: Pool2D(2).forward([ones(1, 4, 4, 1), 3]),
            TypeError,
            "Pool2D needs x as a floating-point array, got int",
        ),
        (
            lambda: Conv2D(3, 1, 3).forward(ones(2, 3, 9, 9)),
            ValueError,
            r"takes images \(N, H, W, 3\), got .*\(2, 3, 9, 9\)",
        ),
        (
            lambda: Conv2D(3, 1, 3).forward(ones(9, 9, 3)),
            ValueError,
            r"takes images \(N, H, W, 3\), got shape \(9, 9, 3\)",
        ),
        (lambda: Conv2D(3, 1, 3).output_shape((3, 9, 9)), ValueError, "takes .* with 3 channels, got"),
        (lambda: Pool2D(2).output_shape((9, 9)), ValueError, r"takes images \(H, W, C\), got \(9, 9\)"),
    ],
)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", LAYERS)
def test_refuses_gradients(name):
    """Before any parameter's gradient is made."""
    layer = LAYERS[name]("float32")
    y = layer.forward(ones(1, 4, 4, 2))
    with pytest.raises(ValueError, match="backward needs one gradient, as forward took its input, got a list of 1"):
        layer.backward([y])
    with pytest.raises(TypeError, match="backward needs dout as a floating-point array, got int"):
        layer.backward(1)
    ys = layer.forward([ones(1, 4, 4, 2), ones(1, 6, 6, 2)])
    for given, got in ((ys[0], "one array"), (ys[:1], "a list of 1"), ([*ys, y], "a list of 3")):
        with pytest.raises(ValueError, match=f"backward needs a list of 2 gradients.*got {got}"):
            layer.backward(given)
    with pytest.raises(ValueError, match="needs the gradient of an output"):
        layer.backward(ys[::-1])
    with pytest.raises(TypeError, match="needs a gradient of the output's float32, got float64"):
        layer.backward([ys[0], ys[1].astype("float64")])
    assert layer.grads == {}


def test_repr():
    assert repr(Conv2D(3, 4, (3, 2), 2, "same")) == "Conv2D(3 → 4, kernel 3x2, stride 2, padding same)"
    assert repr(Pool2D(2, 2, 1, "average", True)) == "Pool2D(average, kernel 2x2, stride 2, padding 1, padding counted)"


def test_weights_are_those_of_its_size(device):
    """He's deviation is √(2 / inputs of an output)."""
    backend.random.seed(3)
    layer = Conv2D(4, 6, (3, 2), dtype="float64")
    backend.random.seed(3)
    assert_same(layer.W, backend.random.normal((3, 2, 4, 6), (2 / 24) ** 0.5, "float64"))
    assert_same(layer.b, np.zeros(6))
