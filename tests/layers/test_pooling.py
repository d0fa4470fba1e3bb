"""Max, average and global average pooling."""

import math

import numpy as np
import pytest

import backend
from backend import xp
from layers import AveragePooling, GlobalAveragePooling, Pooling
from tests.support import oracles
from tests.support.checks import assert_same, normal
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle, products
from tests.support.oracles import Geometry


def largest(geometry):
    def backward(p, dout, x):
        _, argmax = oracles.max_pool(x, geometry)
        spread = lambda dout: oracles.max_pool_backward(dout, argmax, x.shape)  # noqa: E731
        return {"x": products(spread, 0, dout, roundings=math.prod(geometry.kernel))}

    return Oracle(lambda p, x: Expected(oracles.max_pool(x, geometry)[0]), backward)


def mean(geometry, count_padding=False):
    terms = math.prod(geometry.kernel) + 2

    def forward(p, x):
        return products(lambda x: oracles.average_pool(x, geometry, count_padding), terms, x)

    def backward(p, dout, x):
        spread = lambda dout: oracles.average_pool_backward(dout, x.shape, geometry, count_padding)  # noqa: E731
        return {"x": products(spread, terms, dout)}

    return Oracle(forward, backward)


def plane_mean(p, x):
    area = math.prod(x.shape[2:])
    return products(lambda x: x.sum((2, 3)) / area, area + 1, x)


def plane_mean_backward(p, dout, x):
    each = dout[:, :, None, None] / math.prod(x.shape[2:])
    return {"x": Expected(np.broadcast_to(each, x.shape), abs(each), 0, 1)}


ODD = {"stride": (1, 2), "pad": (0, 1, 1, 1), "dilation": (2, 1)}
GEOMETRIES = [
    ("", (2, 3, 4, 4), Geometry((2, 2), (2, 2)), {"stride": 2}),
    (" overlapping", (2, 2, 5, 6), Geometry((3, 3), (2, 2), (1, 1, 1, 1)), {"stride": 2, "pad": 1}),
    (" ceil", (2, 1, 5, 6), Geometry((2, 3), (2, 2), ceil=True), {"stride": 2, "rounding": "ceil"}),
    (" of odd geometry", (1, 2, 5, 5), Geometry((2, 3), (1, 2), (0, 1, 1, 1), (2, 1)), ODD),
]


def pool(kind, geometry, options):
    return lambda draw: kind(*geometry.kernel, **options)


GLOBAL = Oracle(plane_mean, plane_mean_backward)
PADDED = {"stride": 2, "pad": 1, "count_padding": True}
CASES = [
    *(LayerCase(f"Pooling{n}", pool(Pooling, g, options), shape, largest(g)) for n, shape, g, options in GEOMETRIES),
    *(LayerCase(f"AveragePooling{n}", pool(AveragePooling, g, options), s, mean(g)) for n, s, g, options in GEOMETRIES),
    LayerCase(
        "AveragePooling with padding",
        pool(AveragePooling, GEOMETRIES[1][2], PADDED),
        GEOMETRIES[1][1],
        mean(GEOMETRIES[1][2], True),
    ),
    LayerCase("GlobalAveragePooling", lambda draw: GlobalAveragePooling(), (2, 3, 3, 4), GLOBAL),
    LayerCase("GlobalAveragePooling of one pixel", lambda draw: GlobalAveragePooling(), (2, 3, 1, 1), GLOBAL),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_the_books_example(device):
    """Chapter 7.3, figure 7-14, by the book's call: ``Pooling(pool_h=2, pool_w=2, stride=2)``."""
    x = backend.asarray(np.float32([[[[1, 2, 1, 0], [0, 1, 2, 3], [3, 0, 1, 2], [2, 4, 0, 1]]]]))
    layer = Pooling(pool_h=2, pool_w=2, stride=2)
    assert_same(layer.forward(x), np.float32([[[[2, 3], [4, 2]]]]))
    dx = layer.backward(backend.asarray(np.float32([[[[1, 2], [3, 4]]]])))
    assert_same(dx, np.float32([[[[0, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 4], [0, 3, 0, 0]]]]))
    assert layer.pool_h == layer.pool_w == layer.stride == 2


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_padding_never_wins(device, dtype):
    """The book's Pooling ignores ``pad``; and a zero beside negative numbers would be the largest."""
    x = xp.full((1, 2, 3, 3), -5, dtype)
    layer = Pooling(3, 3, stride=2, pad=1)
    assert_same(layer.forward(x), np.full((1, 2, 2, 2), -5, dtype))
    assert float(layer.backward(xp.ones((1, 2, 2, 2), dtype)).sum()) == 8


def test_first_of_equals_wins(device):
    layer = Pooling(2, 2, stride=2)
    layer.forward(xp.zeros((1, 1, 2, 2), "float32"))
    assert_same(layer.backward(xp.ones((1, 1, 1, 1), "float32")), np.float32([[[[1, 0], [0, 0]]]]))


def test_nan_wins(device):
    x = np.float32([[[[1, np.nan], [9, -np.inf]]]])
    layer = Pooling(2, 2)
    assert_same(layer.forward(backend.asarray(x)), np.full((1, 1, 1, 1), np.nan, "float32"))
    assert_same(layer.backward(xp.ones((1, 1, 1, 1), "float32")), np.float32([[[[0, 1], [0, 0]]]]))


def test_the_books_stride_is_one(device):
    assert Pooling(2, 2).forward(normal((1, 1, 4, 5))).shape == (1, 1, 3, 4)
    assert Pooling(2, 2).output_shape((1, 4, 5)) == (1, 3, 4)


def test_a_window_over_all_is_the_global_mean(device):
    x = backend.asarray(np.arange(24, dtype="float32").reshape(1, 2, 3, 4))
    assert_same(AveragePooling(3, 4).forward(x).reshape(1, 2), np.float32([[5.5, 17.5]]))
    assert_same(GlobalAveragePooling().forward(x), np.float32([[5.5, 17.5]]))


def test_float16_sums_do_not_overflow(device):
    """65504 is the largest float16; the sum of the window here is 100·6000."""
    x = xp.full((1, 2, 10, 10), 6000, "float16")
    assert_same(GlobalAveragePooling().forward(x), np.full((1, 2), 6000, "float16"))
    assert_same(AveragePooling(10, 10).forward(x), np.full((1, 2, 1, 1), 6000, "float16"))


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize("kind", [Pooling, AveragePooling])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (ones(3, 9), ValueError, r"\(N, C, H, W\), got shape \(3, 9\)"),
        (ones(2, 1, 2, 9), ValueError, "window of 3 does not fit the image's height: 2"),
        (ones(2, 1, 9, 9, dtype="int32"), TypeError, "needs x as a floating-point array, got int32"),
    ],
)
def test_refuses_an_input(kind, x, error, message):
    with pytest.raises(error, match=message):
        kind(3, 3).forward(x)


@pytest.mark.parametrize("kind", [Pooling, AveragePooling])
def test_refuses_windows_of_padding(kind):
    with pytest.raises(ValueError, match="nothing but padding"):
        kind(1, 1, pad=1).forward(ones(1, 1, 3, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pooling(0, 2), "pool_h must be a whole number from 1 .*, got 0"),
        (lambda: Pooling(2, 2, stride=0), "stride must be .*, got 0"),
        (lambda: Pooling(2, 2, stride=1.5), "stride must be a whole number .*, got 1.5"),
        (lambda: AveragePooling(2, 2, rounding="up"), "rounding must be one of 'floor', 'ceil', got 'up'"),
    ],
)
def test_refuses_a_geometry(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize("layer", [Pooling(2, 2), AveragePooling(2, 2), GlobalAveragePooling()], ids=repr)
def test_refuses_a_shape(layer):
    with pytest.raises(ValueError, match=r"takes images \(C, H, W\).*got \(3, 4\)"):
        layer.output_shape((3, 4))


def test_the_global_mean_refuses():
    with pytest.raises(ValueError, match=r"at least one pixel, got \(3, 0, 4\)"):
        GlobalAveragePooling().forward(ones(2, 3, 0, 4))
    with pytest.raises(ValueError, match=r"takes images \(C, H, W\).*got \(4,\)"):
        GlobalAveragePooling().forward(ones(3, 4))
    with pytest.raises(TypeError, match="GlobalAveragePooling needs x as a floating-point array, got int64"):
        GlobalAveragePooling().forward(ones(2, 3, 2, 4, dtype="int64"))


def test_repr():
    assert repr(Pooling(3, 2, stride=2, pad=1)) == "Pooling(kernel 3x2, stride 2, padding 1)"
    assert repr(AveragePooling(2, 2, 2, rounding="ceil")) == "AveragePooling(kernel 2x2, stride 2, rounding ceil)"
    assert repr(GlobalAveragePooling()) == "GlobalAveragePooling()"
