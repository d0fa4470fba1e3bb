"""Convolution and its transpose."""

import copy
import math

import numpy as np
import pytest

import backend
from backend import random, xp
from layers import Affine, Convolution, ConvolutionTranspose, Relu, Sequential
from tests.support import oracles
from tests.support.checks import assert_same, normal, whole
from tests.support.layer_checks import Contract, LayerCase, Oracle, products
from tests.support.oracles import Geometry


def convolution(geometry, groups=1):
    def forward(p, x):
        function = lambda x, W, b=None: oracles.convolution(x, W, b, geometry, groups)  # noqa: E731
        return products(function, p["W"][0].size + 1, x, *p.values())

    def backward(p, dout, x):
        W, pixels = p["W"], dout[:, 0].size
        dx = lambda dout, W: oracles.convolution_backward_input(dout, W, x.shape, geometry, groups)  # noqa: E731
        dW = lambda x, dout: oracles.convolution_backward_weight(x, dout, W.shape, geometry, groups)  # noqa: E731
        return {
            "x": products(dx, W[:, 0].size, dout, W),
            "W": products(dW, pixels, x, dout),
        } | bias_gradient(p, dout)

    return Oracle(forward, backward)


def bias_gradient(p, dout):
    return {"b": products(lambda dout: dout.sum((0, 2, 3)), dout[:, 0].size, dout)} if "b" in p else {}


def transpose(geometry, size):
    """By definition: a convolution's backward goes forward, and its forward backward."""

    def forward(p, x):
        shape = (len(x), p["W"].shape[1], *size)
        enlarge = lambda x, W: oracles.convolution_backward_input(x, W, shape, geometry)  # noqa: E731
        function = lambda x, W, *b: enlarge(x, W) + sum(each[:, None, None] for each in b)  # noqa: E731
        return products(function, p["W"][:, 0].size + 1, x, *p.values())

    def backward(p, dout, x):
        W = p["W"]
        dW = lambda x, dout: oracles.convolution_backward_weight(dout, x, W.shape, geometry)  # noqa: E731
        return {
            "x": products(lambda dout, W: oracles.convolution(dout, W, None, geometry), W[0].size, dout, W),
            "W": products(dW, x[:, 0].size, x, dout),
        } | bias_gradient(p, dout)

    return Oracle(forward, backward)


def case(name, shape, weight, geometry, bias=True, **options):
    return LayerCase(
        f"Convolution{name}",
        lambda draw: Convolution(draw(*weight), *([draw(weight[0])] if bias else []), **options),
        shape,
        convolution(geometry, options.get("groups", 1)),
    )


def transposed_case(name, shape, weight, geometry, size, bias=True, **options):
    return LayerCase(
        f"ConvolutionTranspose{name}",
        lambda draw: ConvolutionTranspose(draw(*weight), *([draw(weight[1])] if bias else []), **options),
        shape,
        transpose(geometry, size),
    )


ONE_AROUND = (1, 1, 1, 1)
ODD = Geometry((2, 3), (2, 1), (0, 1, 2, 0), (1, 2))
CASES = [
    case("", (2, 3, 5, 5), (4, 3, 3, 3), Geometry((3, 3), pads=ONE_AROUND), pad=1),
    case(" of one wide channel", (2, 1, 6, 8), (2, 1, 2, 3), Geometry((2, 3))),
    case(" of odd geometry", (2, 4, 5, 6), (3, 4, 2, 3), ODD, stride=(2, 1), pad=(0, 1, 2, 0), dilation=(1, 2)),
    case(" in groups", (2, 4, 4, 4), (6, 2, 3, 3), Geometry((3, 3), pads=ONE_AROUND), pad=1, groups=2),
    case(" by channel", (2, 3, 5, 4), (6, 1, 3, 2), Geometry((3, 2), (2, 2), ONE_AROUND), stride=2, pad=1, groups=3),
    case(" same", (2, 2, 5, 6), (3, 2, 4, 3), Geometry((4, 3), (2, 2), (1, 2, 0, 1)), stride=2, pad="same"),
    case(" of 1x1", (2, 3, 3, 2), (4, 3, 1, 1), Geometry((1, 1))),
    case(" of much padding", (1, 2, 3, 3), (2, 2, 2, 2), Geometry((2, 2), pads=(2, 2, 2, 2)), pad=2),
    case(" without a bias", (2, 3, 5, 5), (4, 3, 3, 3), Geometry((3, 3), pads=ONE_AROUND), bias=False, pad=1),
    case(" by channel without a bias", (2, 3, 5, 4), (6, 1, 3, 2), Geometry((3, 2)), bias=False, groups=3),
    transposed_case(" without a bias", (2, 2, 3, 3), (2, 3, 2, 2), Geometry((2, 2)), (4, 4), bias=False),
    transposed_case("", (2, 3, 3, 4), (3, 2, 4, 3), Geometry((4, 3), (2, 2), ONE_AROUND), (6, 7), stride=2, pad=1),
    transposed_case(" dilated", (2, 2, 3, 3), (2, 3, 2, 2), Geometry((2, 2), dilation=(2, 2)), (5, 5), dilation=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_the_books_shapes(device):
    """Chapter 7.2: 28x28 under a 5x5 filter leaves 24x24; (7 + 0 - 3)/2 + 1 = 3; (4 + 2 - 3)/1 + 1 = 4."""
    for image, size, stride, pad, expected in ((28, 5, 1, 0, 24), (7, 3, 2, 0, 3), (4, 3, 1, 1, 4)):
        layer = Convolution.of(1, 2, size, stride=stride, pad=pad)
        assert layer.output_shape((1, image, image)) == (2, expected, expected)
        assert layer.forward(xp.zeros((1, 1, image, image), "float32")).shape == (1, 2, expected, expected)


def test_the_books_example(device):
    """Chapter 7.2.2 and 7.2.3: a 4x4 image under a 3x3 filter, and the bias 3 added to all of it."""
    x = backend.asarray(np.float32([[[[1, 2, 3, 0], [0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1]]]]))
    W = backend.asarray(np.float32([[[[2, 0, 1], [0, 1, 2], [1, 0, 2]]]]))
    layer = Convolution(W, xp.asarray([3], "float32"))
    assert_same(layer.forward(x), np.float32([[[[18, 19], [9, 18]]]]))


def test_a_window_as_large_as_the_image_is_an_affine(device):
    x, W, b = whole((3, 2, 4, 5), seed=1), whole((6, 2, 4, 5), seed=2), whole(6, seed=3)
    y = Convolution(W, b).forward(x)
    assert_same(y.reshape(3, 6), Affine(W.reshape(6, 40).T, b).forward(x))


def test_float16_sums_do_not_overflow(device):
    """65504 is the largest float16; the products here are ±90000, and cancel."""
    layer = Convolution(xp.asarray([[[[300, -300]]]], "float16"), xp.ones(1, "float16"))
    x = xp.full((1, 1, 2, 2), 300, "float16")
    assert_same(layer.forward(x), np.ones((1, 1, 2, 1), "float16"))
    layer.input_gradient = False  # whose numbers really are that large
    layer.backward(xp.asarray([[[[300], [-300]]]], "float16"))
    assert_same(layer.dW, np.zeros((1, 1, 1, 2), "float16"))


def test_the_transpose_is_the_adjoint(device):
    """⟨convolution(x), y⟩ = ⟨x, transpose(y)⟩ for every x and y: exactly, over whole numbers."""
    W = whole((3, 2, 3, 2), seed=1)
    down = Convolution(W, xp.zeros(3, "float32"), stride=2, pad=1)
    up = ConvolutionTranspose(W, xp.zeros(2, "float32"), stride=2, pad=1)
    x = whole((2, 2, 5, 4), seed=2)
    y = whole(down.forward(x).shape, seed=3)
    assert up.forward(y).shape == x.shape
    assert float((down.forward(x) * y).sum()) == float((x * up.forward(y)).sum())


@pytest.mark.parametrize("kind", [Convolution, ConvolutionTranspose])
def test_without_the_input_gradient(device, kind):
    x, W, b = normal((2, 3, 4, 4), seed=1), normal((3, 3, 2, 2), seed=2), normal(3, seed=3)
    layer, first = kind(W, b), kind(W, b)
    first.input_gradient = False
    dout = normal(layer.forward(x).shape, seed=4)
    first.forward(x)
    assert layer.backward(dout).shape == x.shape
    assert first.backward(dout) is None
    assert_same(first.dW, layer.dW)
    assert_same(first.db, layer.db)


def test_of_a_size(device):
    """He's deviation is √(2 / inputs of an output): a filter's channels and taps."""
    layer = Convolution.of(4, 6, (3, 2), stride=2, pad="same", dilation=2, groups=2, dtype="float64")
    backend.random.seed(0)
    assert_same(layer.W, backend.random.normal((6, 2, 3, 2), math.sqrt(2 / 12), "float64"))
    assert_same(layer.b, np.zeros(6))
    assert layer.output_shape((4, 9, 9)) == (6, 5, 5)
    backend.random.seed(0)
    up = ConvolutionTranspose.of(4, 6, (3, 2), stride=2, init=0.01)
    backend.random.seed(0)
    assert_same(up.W, backend.random.normal((4, 6, 3, 2), 0.01))
    assert_same(up.b, np.zeros(6, "float32"))
    assert up.output_shape((4, 5, 5)) == (6, 11, 10)


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Convolution(ones(2, 9), ones(2)), ValueError, r"W \(FN, C, FH, FW\).*got \(2, 9\) and \(2,\)"),
        (lambda: Convolution(ones(2, 1, 3, 3), ones(1)), ValueError, r"got \(2, 1, 3, 3\) and \(1,\)"),
        (lambda: Convolution(ones(2, 1, 3, 3), ones(2, dtype="float64")), TypeError, "W float32, b float64"),
        (lambda: Convolution(ones(2, 1, 3, 3, dtype=int), ones(2)), TypeError, "W as a floating-point array, got int"),
        (lambda: Convolution(ones(3, 1, 3, 3), ones(3), groups=2), ValueError, "2 groups do not divide 3 filters"),
        (lambda: Convolution(ones(3, 1, 3, 3), ones(3), groups=0), ValueError, "groups must be .*, got 0"),
        (
            lambda: Convolution(ones(3, 1, 3, 3), ones(3), stride=0),
            ValueError,
            "stride must be .*, got 0",
        ),
        (
            lambda: Convolution(ones(3, 1, 3, 3), ones(3), pad=-1),
            ValueError,
            "padding must be .*, got -1",
        ),
        (lambda: Convolution(ones(3, 1, 3, 3), ones(3), pad="full"), ValueError, "'same', 'valid', got 'full'"),
        (lambda: Convolution.of(3, 4, 3, groups=2), ValueError, "2 groups do not divide 3 channels"),
        (lambda: ConvolutionTranspose(ones(1, 2, 3, 3), ones(1)), ValueError, r"got \(1, 2, 3, 3\) and \(1,\)"),
        (lambda: ConvolutionTranspose(ones(1, 2, 3, 3), ones(2), pad="same"), ValueError, "'same' does not fix"),
    ],
)
def test_refuses_parameters(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (ones(3, 9, 9), ValueError, r"\(N, C, H, W\), got shape \(3, 9, 9\)"),
        (ones(2, 4, 9, 9), ValueError, r"\(2, 4, 9, 9\) have 4 channels; weight \(2, 3, 3, 3\) .* needs 3"),
        (ones(2, 3, 2, 9), ValueError, "window of 3 does not fit the image's height: 2"),
        (ones(2, 3, 9, 9, dtype="uint8"), TypeError, "needs x as a floating-point array, got uint8"),
    ],
)
def test_refuses_an_input(x, error, message):
    with pytest.raises(error, match=message):
        Convolution(ones(2, 3, 3, 3), ones(2)).forward(x)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (ones(2, 4, 9, 9), ValueError, r"ConvolutionTranspose\(3 → 2, .*\) takes \(N, 3, H, W\), got \(2, 4, 9, 9\)"),
        (ones(3, 9), ValueError, r"takes \(N, 3, H, W\), got \(3, 9\)"),
    ],
)
def test_the_transpose_refuses_an_input(x, error, message):
    with pytest.raises(error, match=message):
        ConvolutionTranspose(ones(3, 2, 3, 3), ones(2)).forward(x)


@pytest.mark.parametrize("shape", [(2, 9, 9), (3, 9), (3,)])
def test_refuses_a_shape(shape):
    for layer in (Convolution(ones(2, 3, 3, 3), ones(2)), ConvolutionTranspose(ones(3, 2, 3, 3), ones(2))):
        with pytest.raises(ValueError) as caught:
            layer.output_shape(shape)
        assert str(shape) in str(caught.value)
        assert "3 channels" in str(caught.value)


def test_repr():
    layer = Convolution(ones(4, 2, 3, 3), ones(4), stride=2, pad=1, groups=2)
    assert repr(layer) == "Convolution(4 → 4, kernel 3x3, stride 2, padding 1, 2 groups)"
    up = ConvolutionTranspose(ones(4, 2, 3, 2), ones(2), dilation=(1, 2))
    assert repr(up) == "ConvolutionTranspose(4 → 2, kernel 3x2, dilation (1, 2))"
    assert repr(Convolution(ones(4, 2, 3, 3))) == "Convolution(2 → 4, kernel 3x3, no bias)"


@pytest.mark.parametrize("behind", [[], [Relu()]], ids=["alone", "with a relu"])
@pytest.mark.parametrize("winograd", [False, True])
def test_without_a_bias_the_bits_are_those_of_a_zero_bias(device, behind, winograd):
    random.seed(1)
    without = Convolution.of(8, 6, 3, pad=1, winograd=winograd, bias=False)
    zero = Convolution(without.W.copy(), xp.zeros(6, "float32"), 1, 1, winograd=winograd)
    assert list(without.params) == ["W"]
    assert without.b is None
    x, dout = normal((2, 8, 9, 11)), normal((2, 6, 9, 11), seed=1)
    rows = [Sequential(layer, *copy.deepcopy(behind)) for layer in (without, zero)]
    assert_same(rows[0].forward(x), rows[1].forward(x))
    assert_same(rows[0].backward(dout), rows[1].backward(dout))
    assert_same(without.dW, zero.dW)
    assert without.db is None
    up = [
        ConvolutionTranspose(x[0, :, :6, None, :2].transpose(0, 1, 3, 2).copy(), *b)
        for b in ((), (xp.zeros(6, "float32"),))
    ]
    assert_same(up[0].forward(x), up[1].forward(x))


# -- winograd ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [[], [Relu()]], ids=["alone", "with a relu"])
def test_winograd_by_name_does_the_same(device, behind):
    random.seed(1)
    one = Convolution.of(8, 6, 3, pad=1, winograd=True)
    other = Convolution(one.W.copy(), one.b.copy(), 1, 1)
    x, dout = normal((2, 8, 9, 11)), normal((2, 6, 9, 11), seed=1)
    rows = [Sequential(layer, *(copy.deepcopy(behind))) for layer in (one, other)]
    assert_near(rows[0].forward(x), rows[1].forward(x))
    assert_near(rows[0].backward(dout), rows[1].backward(dout))
    for name in ("W", "b"):
        assert_near(one.grads[name], other.grads[name])
    assert repr(one) == "Convolution(8 → 6, kernel 3x3, padding 1, winograd)"


def assert_near(actual, expected):
    actual, expected = backend.asnumpy(actual), backend.asnumpy(expected)
    assert np.abs(actual - expected).max() <= 2e-5 * np.abs(expected).max()


def test_winograd_is_refused_where_it_cannot_be():
    with pytest.raises(ValueError, match="winograd needs 3x3 filters"):
        Convolution.of(3, 4, 5, winograd=True)
    with pytest.raises(ValueError, match="got kernel 3x3 and 2 group"):
        Convolution.of(4, 4, 3, groups=2, winograd=True)
